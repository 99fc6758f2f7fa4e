"""Memory that a process has freed stays with it, for the next tensors."""

from __future__ import annotations

import ctypes

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make the C library keep what is freed; return whether it could be told.

    glibc gives large blocks back to the system as soon as they are free, and gets their pages anew, all zeroed, for the
    next tensors. What that costs, in time and in memory: `experiments/supernet-costs`. Other C libraries are left as
    they are.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no such library; Windows
        return False
    return bool(tune(_M_MMAP_MAX, 0) and tune(_M_TRIM_THRESHOLD, -1))
