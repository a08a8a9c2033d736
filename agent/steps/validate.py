"""Prove the new revision: its units stay up while its own hooks and status endpoints judge it."""

from __future__ import annotations

from agent.model.appspec import AppSpec, LifecycleEvent
from agent.steps.context import Context, Result
from agent.system import ownership, status_check
from agent.units import control, watch


async def do(ctx: Context) -> Result:
    """Run ValidateService, then let every status endpoint prove version and health.

    From the start of its units on they have to stay up: one that ends fails this at once. Of a
    unit, only processes count that were started since this deployment began.
    """
    appspec = await ctx.appspec(ctx.release)
    units = ctx.units
    services = control.with_units(appspec)
    if units is None or not services:
        return await _prove(ctx, appspec)
    await units.ensure_started(services)
    is_watched_only = any(service.status is None for service in services)
    seconds = watch.DEFAULT_SECONDS if is_watched_only else 0.0
    return await units.watched(_prove(ctx, appspec), seconds=seconds)


async def _prove(ctx: Context, appspec: AppSpec) -> Result:
    await ctx.run_event(LifecycleEvent.VALIDATE_SERVICE, ctx.release)
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
