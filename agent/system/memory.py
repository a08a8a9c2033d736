"""What the allocator keeps: mallopt(3), malloc_trim(3) of glibc; nothing is done without them.

And what Python's collector of cyclic garbage looks at.
"""

from __future__ import annotations

import gc
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


def spare_the_collector() -> None:
    """Have what start-up made be looked at no more: it lives as long as the agent.

    Else each full collection in a deployment goes through 50,000 objects, which takes 0.04 s.
    """
    gc.freeze()
