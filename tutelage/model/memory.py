"""Memory that the C library keeps: training allocates and frees the same large blocks at each step."""

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 2**31 - 1
PAD_BYTES = 2**28
MMAP_BYTES = 2**25
"""The largest threshold that glibc takes; larger blocks still come from the kernel."""


@cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next step; whether that was possible.

    By default it returns large blocks to the kernel each time, which then clears them again. Done once a process; other
    C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: PAD_BYTES, M_MMAP_THRESHOLD: MMAP_BYTES}
    done = [mallopt(name, value) for name, value in settings.items()]  # all of them, whatever one returns
    return all(done)
