"""Blocking work beside the event loop, that is never left running behind its caller's back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agent.system.cancel import Cancel

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(
    cancel: Cancel, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run blocking `work` in a thread; when the caller is cancelled, stop the work first.

    A thread cannot be killed: `work` looks at `cancel` between its pieces. Returning before it
    has stopped would let an undo run beside the do that it is to undo.
    """
    future = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel.set("stopped")
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: the caller is being cancelled for a reason of its own
        raise
