"""The new revision's AfterInstall hooks."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context


async def do(ctx: Context) -> None:
    """Run AfterInstall."""
    await ctx.run_event(LifecycleEvent.AFTER_INSTALL, ctx.release)
