"""Stop the current revision; undo starts it again and proves it by its status endpoint."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context, Result
from agent.system import ownership, status_check


async def do(ctx: Context) -> Result:
    """Run ApplicationStop of the current revision: the one that was proved, not the newest."""
    if ctx.current is None:
        return Result(note="nothing is deployed yet")
    return Result(note=await ctx.run_old_event(LifecycleEvent.APPLICATION_STOP, ctx.current))


async def undo(ctx: Context) -> None:
    """Start the current revision again; it counts as serving only when it says so itself."""
    if ctx.current is None:
        return
    await ctx.put_files_back()  # what ApplicationStop took away
    await ctx.run_event(LifecycleEvent.APPLICATION_START, ctx.current)
    appspec = await ctx.appspec(ctx.current)
    for service in appspec.services:
        if service.status is not None:
            await status_check.check_service(
                ctx.http,
                service.status,
                ctx.current.revision.version,
                cancel=ctx.cancel,
                log=ctx.log,
                owner=ownership.owner_of(service, ctx.systemd),
            )
