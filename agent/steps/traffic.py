"""Take this host out of traffic and back: the AWS traffic hooks (Consul comes with its part)."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context, Result

_BLOCK = (LifecycleEvent.BEFORE_BLOCK_TRAFFIC, LifecycleEvent.AFTER_BLOCK_TRAFFIC)
_ALLOW = (LifecycleEvent.BEFORE_ALLOW_TRAFFIC, LifecycleEvent.AFTER_ALLOW_TRAFFIC)


async def block(ctx: Context) -> Result:
    """Run the current revision's block hooks."""
    if ctx.current is None:
        return Result()
    notes = [await ctx.run_old_event(event, ctx.current) for event in _BLOCK]
    return Result(note="; ".join(filter(None, notes)))


async def unblock(ctx: Context) -> None:
    """Undo of block: the current revision, which serves again, takes its traffic back."""
    if ctx.current is not None:
        for event in _ALLOW:
            await ctx.run_event(event, ctx.current)


async def allow(ctx: Context) -> None:
    """Run the new revision's allow hooks."""
    for event in _ALLOW:
        await ctx.run_event(event, ctx.release)


async def disallow(ctx: Context) -> None:
    """Undo of allow: the new revision gives its traffic up."""
    for event in _BLOCK:
        await ctx.run_event(event, ctx.release)
