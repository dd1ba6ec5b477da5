"""Ctrl-C during a training: the first one asks for an end, the second one is an end."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) call `stop`, and a second one raise KeyboardInterrupt at once.

    Python has signals handled by its main thread alone: a training in another one is ended by whoever started it.

    Args:
        stop: asks the training to end after the current step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        stop()
        print("\nStopping and saving; Ctrl-C again stops at once, without saving.", file=sys.stderr, flush=True)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
