"""Keep freed memory in the process instead of giving it back to the kernel."""

import ctypes
import platform

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # names of glibc's mallopt(3)
NO_TRIMMING = -1


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks; return whether it does.

    By default every large tensor is a mapping of its own (from 32 MiB on even where M_MMAP_THRESHOLD asks for less):
    each update gives its images back to the kernel and faults the same pages in again, zeroed. That costs 10 to 30 %
    of an update. Elsewhere than on glibc this does nothing. The process then keeps the memory of its largest update.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(MMAP_MAX, 0) and libc.mallopt(TRIM_THRESHOLD, NO_TRIMMING))
