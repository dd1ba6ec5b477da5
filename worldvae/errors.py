"""Exceptions that mean "the user can fix this"."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user: the message says what was given, what is accepted, and the fix.

    The command line prints the message without a traceback and exits with code 2.
    """


class Diverged(UserError):
    """Training has produced numbers that are not finite: its state must not replace an earlier checkpoint."""


def near_miss(given: str, accepted: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the accepted word closest to `given`, or the empty string.

    Example:
        >>> near_miss("learning_rat", ["learning_rate", "batch"])
        " Did you mean 'learning_rate'?"
    """
    close = difflib.get_close_matches(given, list(accepted), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
