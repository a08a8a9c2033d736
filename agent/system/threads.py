"""Blocking work beside the event loop, that is never left running behind its caller's back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from agent.system.cancel import Cancel

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_SECONDS = 0.2  # how late stop_with may notice


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
        await outlast(future)
        raise


async def outlast(future: asyncio.Future[T]) -> None:
    """Wait until it has ended, also while the caller is being cancelled; raises nothing of it."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # seen: the caller is being cancelled for a reason of its own


async def stop_with(cancel: Cancel, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop until it ends or `cancel` is set; raises Interrupted then."""
    running = asyncio.ensure_future(work)
    try:
        while not running.done():
            cancel.check()
            await asyncio.wait([running], timeout=_LOOK_SECONDS)
    finally:
        running.cancel()
        await outlast(running)
    return running.result()
