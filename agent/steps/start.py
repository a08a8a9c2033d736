"""Start the new revision; undo stops it, whatever it takes."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.model.errors import AgentError
from agent.model.settings import StopFailure
from agent.steps.context import Context

_STARTING = (
    LifecycleEvent.BEFORE_INSTALL,
    LifecycleEvent.AFTER_INSTALL,
    LifecycleEvent.APPLICATION_START,
    LifecycleEvent.VALIDATE_SERVICE,
)


async def do(ctx: Context) -> None:
    """Run ApplicationStart."""
    await ctx.run_event(LifecycleEvent.APPLICATION_START, ctx.release)


async def undo(ctx: Context) -> None:
    """Run the new revision's ApplicationStop, then end what its hooks left running."""
    failure = None
    try:
        await ctx.run_event(LifecycleEvent.APPLICATION_STOP, ctx.release)
    except AgentError as error:
        ctx.log.line(f"warning: while undoing start: {error.message}")
        failure = error
    for ended in await ctx.hooks.kill_left_over(ctx.deployment.id, _STARTING):
        ctx.log.line(f"ended what the undone revision left running: {ended}")
    if failure is not None and ctx.settings.stop_failure is StopFailure.FAIL:
        raise failure
