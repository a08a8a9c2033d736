"""What the allocator keeps: mallopt(3), malloc_trim(3) of glibc; nothing is done without them."""

from __future__ import annotations

import os

from agent.system import libc

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def share_one_heap() -> None:
    """Keep glibc from giving each thread a heap of its own: 5 to 10 MB less at the peak.

    Our threads wait for disks, not for malloc. The agent's unit says so in its environment.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        libc.try_call("mallopt", _ARENA_MAX, 1)


def give_back() -> None:
    """Give what is free between used pieces back to the kernel: some ms, worth it when idle."""
    libc.try_call("malloc_trim", 0)
