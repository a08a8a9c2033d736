"""Stop the current revision; undo starts it again and proves it by its status endpoint."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.model.errors import AgentError, Interrupted
from agent.model.settings import StopFailure
from agent.steps.context import Context, Result
from agent.system import status_check


async def do(ctx: Context) -> Result | None:
    """Run ApplicationStop of the current revision: the one that was proved, not the newest."""
    if ctx.current is None:
        return Result(note="nothing is deployed yet")
    try:
        await ctx.run_event(LifecycleEvent.APPLICATION_STOP, ctx.current)
    except Interrupted:
        raise
    except AgentError as error:
        if ctx.settings.stop_failure is StopFailure.FAIL or ctx.cancel.is_set():
            raise
        version = ctx.current.revision.version
        note = (
            f"ApplicationStop of the old revision {version} failed, not of the new one:"
            f" {error.message}; going on, as stop_failure is fallback"
        )
        ctx.log.line(f"warning: {note}")
        for line in error.details:
            ctx.log.line(f"  {line}")
        return Result(note=note)
    return None


async def undo(ctx: Context) -> None:
    """Start the current revision again; it counts as serving only when it says so itself."""
    if ctx.current is None:
        return
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
            )
