"""A setting of the C library that makes training on a CPU faster."""

import ctypes
import platform

# Names from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGE = (1 << 31) - 1  # bytes; the most that mallopt takes
NEVER = -1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory instead of giving it back to the system.

    A training step frees and asks again for the same megabytes. By default each large block is a fresh
    mapping whose pages the kernel must zero at first touch, and that was half of the time of a small step; so
    it was of a large one as long as what exceeded a gigabyte was still given back.
    The setting holds for the whole process; elsewhere than on Linux with glibc nothing happens.

    Returns:
        Whether the setting was made.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    options = {M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: 64 << 20}
    accepted = [libc.mallopt(option, value) for option, value in options.items()]
    return all(accepted)
