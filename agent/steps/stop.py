"""Stop the current revision; undo starts it again and proves it by its status endpoint."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.model.errors import AgentError
from agent.steps.context import Context, Result
from agent.system import ownership, status_check
from agent.units import undo as units_undo


async def do(ctx: Context) -> Result:
    """Run ApplicationStop of the current revision, the one that was proved; then stop its units.

    What all units are before they are touched is recorded first: the undo makes it so again.
    """
    units = ctx.units
    old, new = await ctx.old_services(), await ctx.services(ctx.release)
    if units is not None:
        await units.record_before([*old, *new])
    if ctx.current is None:
        return Result(note="nothing is deployed yet")
    notes = [await ctx.run_old_event(LifecycleEvent.APPLICATION_STOP, ctx.current)]
    if units is not None:
        notes += await units.stop(list(old.values()))
        # now: without its file, which may go with the install, a unit cannot be disabled
        await units.disable(unit for unit in old if unit not in new)
    return Result(note="; ".join(filter(None, notes)))


async def undo(ctx: Context) -> None:
    """Start the current revision again; it counts as serving only when it says so itself.

    Its units run, or do not, as they did before. All of this is tried, whatever of it fails.
    """
    await ctx.put_files_back()  # what ApplicationStop took away
    services = await ctx.all_services()
    units = ctx.units
    failure: AgentError | None = None
    try:
        if units is not None:
            await units_undo.stop_strangers(units, services)
        if ctx.current is not None:
            await ctx.run_event(LifecycleEvent.APPLICATION_START, ctx.current)
    except AgentError as error:
        failure = error
    if units is not None:
        await units_undo.put_back(units, services)
    if failure is not None:
        raise failure
    await _prove(ctx)


async def _prove(ctx: Context) -> None:
    if ctx.current is None:
        return
    before = {} if ctx.units is None else (await ctx.units.load()).before
    appspec = await ctx.appspec(ctx.current)
    for service in appspec.services:
        if service.unit in before and not before[service.unit].was_running:
            ctx.log.line(f"{service.unit} did not run before this deployment: not asked")
        elif service.status is not None:
            await status_check.check_service(
                ctx.http,
                service.status,
                ctx.current.revision.version,
                cancel=ctx.cancel,
                log=ctx.log,
                owner=ownership.owner_of(service, ctx.systemd),
            )
