"""What the allocator keeps: mallopt(3), malloc_trim(3) of glibc; nothing is done without them."""

from __future__ import annotations

import ctypes

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def share_one_heap() -> None:
    """Keep glibc from giving each thread a heap of its own: 5 to 10 MB less at the peak.

    Our threads wait for disks, not for malloc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Give what is free between used pieces back to the kernel: some ms, worth it when idle."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
