"""One writer at a time: a lock on a run directory, which the system itself releases when the process ends."""

import os
import sys
import weakref
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from worldvae.errors import UserError

if sys.platform != "win32":
    import fcntl


class Lock:
    """Holds a folder until it is closed; readers are not hindered. Processes forked meanwhile do not hold it.

    Raises:
        UserError: If another process, or another trainer of this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if sys.platform == "win32":  # there is no flock: the run is the user's to guard
            self.close = lambda: None
            return
        descriptor = os.open(folder, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, descriptor)
        """Give the folder free; closing twice does nothing, and a lock that is forgotten closes itself."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"{folder} is being trained by another process: wait for it, or choose another --out."
            ) from None
        except OSError:
            pass  # a file system without locks: the run is the user's to guard
        _held.add(self)
        here = os.fstat(descriptor)
        if not folder.exists() or not os.path.samestat(here, folder.stat()):
            self.close()  # another process has deleted the folder while this one was opening it
            raise FileNotFoundError(folder)

    def __repr__(self) -> str:
        return f"Lock({self.folder})"


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """Close the locks that a forked process has inherited: else it would hold the folder after its parent has ended."""
    for lock in list(_held):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class Taken(UserError):
    """The folder that had to be new exists already."""


def claim(folder: Path, opened: ExitStack, *, new: bool = False) -> Lock:
    """Make `folder` and hold it until `opened` is closed, which then removes it again if it was made here and is empty.

    Args:
        folder: the run directory.
        opened: closes the lock.
        new: whether to refuse a folder that exists: of several processes that claim it at once, one gets it.

    Raises:
        Taken: If it has to be new and is not.
        UserError: If another process holds it, or it cannot be made.
    """
    for _ in range(10):
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=not new)
            lock = opened.enter_context(closing(Lock(folder)))
        except UserError as error:
            raise Taken(str(error)) if new else error from None
        except FileNotFoundError:
            continue  # deleted in this very moment, by a process whose run could not begin
        except FileExistsError as error:
            if new and folder.exists():
                raise Taken(f"{folder} is there already: choose another --out.") from error
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out.") from error
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out.") from error
        if made:
            opened.callback(_remove_if_empty, folder)
        return lock
    raise UserError(f"{folder} is deleted by another process each time it is made: choose another --out.")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
