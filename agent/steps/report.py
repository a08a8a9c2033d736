"""Tell the source how the deployment ended."""

from __future__ import annotations

from agent.steps.context import Context


async def do(ctx: Context) -> None:
    """Report the outcome."""
    await ctx.report(ctx.deployment)
