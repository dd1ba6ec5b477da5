"""Keep freed memory in the process instead of giving it back to the kernel."""

import ctypes
import platform

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # names of glibc's mallopt(3)
LARGEST_CHUNK = 32 * 2**20  # the most glibc accepts
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks; return whether it could be asked to.

    By default every tensor above a few hundred kB is a mapping of its own: each update gives its images back to the
    kernel and faults the same pages in again, zeroed. That costs 10 to 30 % of an update. Elsewhere than on glibc this
    does nothing. The process then keeps the memory of its largest update.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(MMAP_THRESHOLD, LARGEST_CHUNK) and libc.mallopt(TRIM_THRESHOLD, NEVER))
