"""Prove the new revision: its own hooks, then its status endpoints. Nothing here to undo."""

from __future__ import annotations

from agent.model.appspec import LifecycleEvent
from agent.steps.context import Context, Result
from agent.system import ownership, status_check


async def do(ctx: Context) -> Result:
    """Run ValidateService, then let every status endpoint prove version and health.

    Of a unit, only processes count that were started since this deployment began.
    """
    await ctx.run_event(LifecycleEvent.VALIDATE_SERVICE, ctx.release)
    appspec = await ctx.appspec(ctx.release)
    answers = [
        await status_check.check_service(
            ctx.http,
            service.status,
            ctx.release.revision.version,
            cancel=ctx.cancel,
            log=ctx.log,
            owner=ownership.owner_of(service, ctx.systemd, since=ctx.deployment.started_at),
        )
        for service in appspec.services
        if service.status is not None
    ]
    return Result(note="; ".join(answer.detail for answer in answers))
