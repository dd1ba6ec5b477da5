"""One writer at a time: a lock on a run directory, which the system itself releases when the process ends."""

import os
import sys
import weakref
from pathlib import Path

from worldvae.errors import UserError

if sys.platform != "win32":
    import fcntl


class Lock:
    """Holds a folder until it is closed; readers are not hindered.

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

    def __repr__(self) -> str:
        return f"Lock({self.folder})"
