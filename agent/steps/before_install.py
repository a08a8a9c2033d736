"""The new revision's BeforeInstall hooks; undo puts back what they took away."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context


async def do(ctx: Context) -> None:
    """Run BeforeInstall."""
    await ctx.run_event(LifecycleEvent.BEFORE_INSTALL, ctx.release)


async def undo(ctx: Context) -> None:
    """Put back what its hooks took away: an rm -rf of the old files is common in them."""
    await ctx.put_files_back()
