"""The new revision's BeforeInstall hooks."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context


async def do(ctx: Context) -> None:
    """Run BeforeInstall."""
    await ctx.run_event(LifecycleEvent.BEFORE_INSTALL, ctx.release)
