"""Reuse of freed memory: a process that learns allocates the same large buffers again and again."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has the C library keep freed memory for the next request instead of giving it back to the system.

    Buffers of an update are larger than what glibc keeps by default; each would come back as new pages, which the
    system has to clear one by one: a fifth of the time of an update of a small policy. Affects the whole process.

    Returns:
        Whether this C library supports it; otherwise nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
