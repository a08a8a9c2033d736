"""Take this host out of traffic and back: Consul, and the AWS traffic hooks around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.model.appspec import ConsulService, LifecycleEvent, Service
from agent.model.deployment import Status, StepName, Trigger
from agent.model.errors import AgentError, Interrupted
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking
from agent.traffic import definitions

if TYPE_CHECKING:  # only hosts with Consul load it
    from agent.traffic.control import Traffic


async def block(ctx: Context) -> Result:
    """Run the current revision's block hooks; between them its services leave Consul's traffic."""
    if ctx.current is None:
        return Result()
    notes = [await ctx.run_old_event(LifecycleEvent.BEFORE_BLOCK_TRAFFIC, ctx.current)]
    if ctx.traffic is not None:
        notes.append(await ctx.traffic.leave(await _old_services(ctx), await _installed(ctx)))
    notes.append(await ctx.run_old_event(LifecycleEvent.AFTER_BLOCK_TRAFFIC, ctx.current))
    return Result(note="; ".join(filter(None, notes)))


async def unblock(ctx: Context) -> None:
    """Undo of block: the current revision, which serves again, takes its traffic back.

    Whatever its hooks do, Consul lets it in again; but not where its start has failed, as what
    Consul knows of it may be of before the stop.
    """
    failure = await _try_event(ctx, LifecycleEvent.BEFORE_ALLOW_TRAFFIC)
    if ctx.traffic is not None:
        await _reload_where_changed(ctx, ctx.traffic)
        revision = None if ctx.current is None else ctx.current.revision
        restart = ctx.steps.get(_restarting(ctx))
        await ctx.traffic.restore(
            await _old_services(ctx),
            revision,
            unproved=await _unproved(ctx) if restart is not None else (),
            is_serving=restart is not Status.FAILED,
        )
    failure = failure or await _try_event(ctx, LifecycleEvent.AFTER_ALLOW_TRAFFIC)
    if failure is not None:
        raise failure


async def allow(ctx: Context) -> Result:
    """Run the new revision's allow hooks; between them its services enter Consul's traffic.

    Raises AgentError (CONSUL_CRITICAL) where Consul's checks do not pass in time.
    """
    await ctx.run_event(LifecycleEvent.BEFORE_ALLOW_TRAFFIC, ctx.release)
    notes = []
    if ctx.traffic is None:
        notes.append(_unused(ctx, await _new_services(ctx)))
    else:
        notes.append(await _reload_where_changed(ctx, ctx.traffic))
        notes += await _unread(ctx)
        old = [each.id for each in await _old_services(ctx)]
        notes.append(await ctx.traffic.enter(await _new_services(ctx), await _planned(ctx), old))
    await ctx.run_event(LifecycleEvent.AFTER_ALLOW_TRAFFIC, ctx.release)
    return Result(note="; ".join(filter(None, notes)))


async def disallow(ctx: Context) -> None:
    """Undo of allow: the new revision gives its traffic up, whatever its hooks do."""
    failure: AgentError | None = None
    try:
        await ctx.run_event(LifecycleEvent.BEFORE_BLOCK_TRAFFIC, ctx.release)
    except AgentError as error:
        failure = error
    if ctx.traffic is not None:
        await ctx.traffic.leave_again(await _new_services(ctx), await _planned(ctx))
    if failure is not None:
        raise failure
    await ctx.run_event(LifecycleEvent.AFTER_BLOCK_TRAFFIC, ctx.release)


def _unused(ctx: Context, services: Sequence[ConsulService]) -> str:
    """A remark where the appspec expects of this host what its configuration does not have."""
    if not services:
        return ""
    names = ", ".join(each.id for each in services)
    note = f"{names}: not registered, as agent.yaml has no section consul"
    ctx.log.line(f"warning: {note}")
    return note


def _restarting(ctx: Context) -> StepName:
    """The row whose undo starts the current revision again."""
    is_environment = ctx.deployment.trigger is Trigger.ENVIRONMENT
    return StepName.INSTALL if is_environment else StepName.STOP


async def _unproved(ctx: Context) -> Sequence[str]:
    """Ids of the current revision's services that the undo of the stop has not asked."""
    return [
        each.consul.id
        for each in await _current_services(ctx)
        if each.consul is not None and each.status is None
    ]


async def _try_event(ctx: Context, event: LifecycleEvent) -> AgentError | None:
    """Run hooks of the revision that serves again; how they failed."""
    if ctx.current is None:
        return None
    try:
        await ctx.run_event(event, ctx.current)
    except AgentError as error:
        return error
    return None


async def _new_services(ctx: Context) -> Sequence[ConsulService]:
    appspec = await ctx.appspec(ctx.release)
    return [each.consul for each in appspec.services if each.consul is not None]


async def _old_services(ctx: Context) -> Sequence[ConsulService]:
    """Those of the current revision; none where its appspec cannot be read."""
    return [each.consul for each in await _current_services(ctx) if each.consul is not None]


async def _current_services(ctx: Context) -> Sequence[Service]:
    if ctx.current is None:
        return []
    try:
        appspec = await ctx.appspec(ctx.current)
    except Interrupted:
        raise
    except AgentError as error:
        version = ctx.current.revision.version
        ctx.log.line(f"warning: the services of {version} are not known: {error.message}")
        return []
    return appspec.services


async def _installed(ctx: Context) -> tuple[str, ...]:
    """Ids of the services that files of the current revision define."""

    def read() -> tuple[str, ...]:
        files = ctx.installed.of(ctx.deployment.revision.application)
        return definitions.read_ids(definitions.find_installed(files, _folder(ctx)))

    return await run_blocking(ctx.cancel, read)


async def _unread(ctx: Context) -> list[str]:
    """A remark on each file of the new revision whose services are not known."""
    if ctx.deployment.trigger is Trigger.ENVIRONMENT:
        return []

    def read() -> tuple[str, ...]:
        paths, _ = definitions.find_planned(ctx.plan_path, _folder(ctx))
        return definitions.find_unread(paths)

    notes = [
        f"{path}: which services it defines is not understood, so they do not leave traffic"
        for path in await run_blocking(ctx.cancel, read)
    ]
    for note in notes:
        ctx.log.line(f"warning: {note}")
    return notes


async def _planned(ctx: Context) -> tuple[str, ...]:
    """Ids of the services that files of the new revision define."""
    if ctx.deployment.trigger is Trigger.ENVIRONMENT:
        return await _installed(ctx)  # no file changes
    paths, _ = await run_blocking(ctx.cancel, definitions.find_planned, ctx.plan_path, _folder(ctx))
    return await run_blocking(ctx.cancel, definitions.read_ids, paths)


async def _reload_where_changed(ctx: Context, traffic: Traffic) -> str:
    """Consul reads its definitions again where this deployment has changed some of them."""
    _, is_changed = await run_blocking(
        ctx.cancel, definitions.find_planned, ctx.plan_path, _folder(ctx)
    )
    return await traffic.reload() if is_changed else ""


def _folder(ctx: Context) -> str:
    consul = ctx.settings.consul
    assert consul is not None
    return consul.services_dir
