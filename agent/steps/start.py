"""Start the new revision; undo stops it, whatever it takes."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.model.errors import AgentError
from agent.model.settings import StopFailure
from agent.steps.context import Context, Result
from agent.units import undo as units_undo

_STARTING = (
    LifecycleEvent.BEFORE_INSTALL,
    LifecycleEvent.AFTER_INSTALL,
    LifecycleEvent.APPLICATION_START,
    LifecycleEvent.VALIDATE_SERVICE,
)


async def do(ctx: Context) -> Result:
    """Run ApplicationStart, then enable and start the units."""
    units = ctx.units
    services = list((await ctx.services(ctx.release)).values())
    if units is None or not services:
        await ctx.run_event(LifecycleEvent.APPLICATION_START, ctx.release)
        return Result()
    scene = await units.look(services)
    await ctx.run_event(LifecycleEvent.APPLICATION_START, ctx.release)
    return Result(note=await units.start(services, scene))


async def undo(ctx: Context) -> None:
    """Run the new revision's ApplicationStop, end what its hooks left running, stop its units."""
    failure = None
    try:
        await ctx.run_event(LifecycleEvent.APPLICATION_STOP, ctx.release)
    except AgentError as error:
        ctx.log.line(f"warning: while undoing start: {error.message}")
        failure = error
    for ended in await ctx.hooks.kill_left_over(ctx.deployment.id, _STARTING):
        ctx.log.line(f"ended what the undone revision left running: {ended}")
    if ctx.units is not None:
        await units_undo.undo_start(ctx.units, await ctx.all_services())
    if failure is not None and ctx.settings.stop_failure is StopFailure.FAIL:
        raise failure
