"""Take this host out of traffic and back: the AWS traffic hooks (Consul comes with its part)."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context

_BLOCK = (LifecycleEvent.BEFORE_BLOCK_TRAFFIC, LifecycleEvent.AFTER_BLOCK_TRAFFIC)
_ALLOW = (LifecycleEvent.BEFORE_ALLOW_TRAFFIC, LifecycleEvent.AFTER_ALLOW_TRAFFIC)


async def block(ctx: Context) -> None:
    """Run the current revision's block hooks."""
    await _run_current(ctx, _BLOCK)


async def unblock(ctx: Context) -> None:
    """Undo of block: the current revision, which serves again, takes its traffic back."""
    await _run_current(ctx, _ALLOW)


async def allow(ctx: Context) -> None:
    """Run the new revision's allow hooks."""
    for event in _ALLOW:
        await ctx.run_event(event, ctx.release)


async def disallow(ctx: Context) -> None:
    """Undo of allow: the new revision gives its traffic up."""
    for event in _BLOCK:
        await ctx.run_event(event, ctx.release)


async def _run_current(ctx: Context, events: tuple[LifecycleEvent, ...]) -> None:
    if ctx.current is not None:
        for event in events:
            await ctx.run_event(event, ctx.current)
