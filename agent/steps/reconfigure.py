"""A changed environment, as a small deployment of the revision that runs: agent.lifecycle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.environment import changes, files, snapshots, variables
from agent.environment.snapshots import Choice, Kept
from agent.files import planfile
from agent.model.appspec import EnvironmentFile, LifecycleEvent, OnChange, Service
from agent.model.errors import AgentError, Code, Conflict
from agent.steps.context import Context, Result
from agent.system import ownership, processes, status_check
from agent.system.threads import run_blocking
from agent.units import watch


async def plan(ctx: Context) -> Result:
    """Read Consul's values, and refuse what cannot be an environment before anything is touched.

    Nothing stands in for values that cannot be read: what runs has some.
    """
    if ctx.current is None or ctx.current.name != ctx.release.name:
        raise Conflict(
            f"cannot change the environment of {ctx.release.revision.version}: it is not current",
            code=Code.CONFLICT,
        )
    old = await run_blocking(ctx.cancel, snapshots.load, ctx.release.environment)
    wanted = snapshots.files_of(await ctx.appspec(ctx.release))
    new = {each.prefix: await snapshots.read(ctx.consul, each.prefix) for each in wanted}
    await run_blocking(ctx.cancel, changes.note, ctx.work_dir, Choice(Kept(new)), old)
    await run_blocking(ctx.cancel, _make_empty_plan, ctx)
    notes = []
    for prefix, snapshot in new.items():
        known = old.snapshots[prefix].values if prefix in old.snapshots else {}
        changed = variables.describe_change(known, snapshot.values)
        notes.append(f"{prefix} at index {snapshot.index}: {changed}")
    return Result(note="; ".join(notes))


def _make_empty_plan(ctx: Context) -> None:
    """The commit reads it: no file of the bundle changes."""
    with planfile.making(ctx.work_dir / planfile.NAME, ctx.cancel):
        pass


async def install(ctx: Context) -> Result:
    """Write the new values."""
    wanted = snapshots.files_of(await ctx.appspec(ctx.release))
    told = await run_blocking(
        ctx.cancel, changes.install, ctx.work_dir, wanted, (), ctx.release.environment
    )
    return Result(note=told.removeprefix("; "))


async def put_back(ctx: Context) -> None:
    """Undo of install and tell: the previous values, and who was told is told again."""
    was_written = await run_blocking(ctx.cancel, files.undo, ctx.work_dir)
    units = await asyncio.to_thread(changes.told, ctx.work_dir)
    if was_written and units:
        await _tell(ctx, units)
        await _prove(ctx)


async def tell(ctx: Context) -> Result:
    """Restart, reload or signal the services whose values changed, as their on_change says."""
    found = await _changed(ctx, OnChange.RESTART, OnChange.RELOAD, OnChange.SIGNAL)
    names = [service.unit for service, _ in found]
    if names and ctx.systemd is None:
        raise AgentError(
            f"cannot tell {names[0]} of it: this host has no systemd", code=Code.UNIT_FAILED
        )
    states = await ctx.systemd.states(names) if ctx.systemd is not None else {}
    running = [name for name in names if states[name].is_running]
    await run_blocking(ctx.cancel, changes.note_told, ctx.work_dir, running)
    left = [f"{name} does not run, and is left so" for name in names if name not in running]
    return Result(note="; ".join([await _tell(ctx, running), *left]).strip("; "))


async def validate(ctx: Context) -> Result:
    """Run ValidateService, and ask every status endpoint; what was restarted has to stay up."""
    units = ctx.units
    restarted = [each.unit for each, _ in await _changed(ctx, OnChange.RESTART)]
    if units is None or not restarted:
        return await _validate(ctx)
    return await units.watched(_validate(ctx), seconds=watch.DEFAULT_SECONDS)


async def restarts(ctx: Context) -> bool:
    """Whether a service is restarted for the change, which takes it out of traffic."""
    return bool(await _changed(ctx, OnChange.RESTART))


async def _validate(ctx: Context) -> Result:
    await ctx.run_event(LifecycleEvent.VALIDATE_SERVICE, ctx.release)
    return Result(note="; ".join(await _prove(ctx)))


async def _prove(ctx: Context) -> list[str]:
    """What each status endpoint says; raises AgentError."""
    restarted = {each.unit for each, _ in await _changed(ctx, OnChange.RESTART)}
    since = ctx.deployment.started_at
    appspec = await ctx.appspec(ctx.release)
    answers = [
        await status_check.check_service(
            ctx.http,
            service.status,
            ctx.release.revision.version,
            cancel=ctx.cancel,
            log=ctx.log,
            owner=ownership.owner_of(
                service, ctx.systemd, **({"since": since} if service.unit in restarted else {})
            ),
        )
        for service in appspec.services
        if service.status is not None
    ]
    return [answer.detail for answer in answers]


async def _changed(ctx: Context, *only: OnChange) -> list[tuple[Service, EnvironmentFile]]:
    """The services whose values are other ones now."""
    known = await asyncio.to_thread(changes.digests, ctx.work_dir)
    return [
        (service, service.environment)
        for service in (await ctx.appspec(ctx.release)).services
        if service.environment is not None
        and service.environment.prefix in known.changed
        and (not only or service.environment.on_change in only)
    ]


async def _tell(ctx: Context, units: Sequence[str]) -> str:
    """Tell these units in their order; one that has ended since is started. Raises AgentError."""
    return "; ".join(
        [
            await _tell_one(ctx, service, environment)
            for service, environment in await _changed(ctx)
            if service.unit in units
        ]
    )


async def _tell_one(ctx: Context, service: Service, environment: EnvironmentFile) -> str:
    assert ctx.systemd is not None
    unit, on_change = service.unit, environment.on_change
    if on_change is OnChange.RESTART or not (await ctx.systemd.state(unit)).is_running:
        return await _restart(ctx, service)
    if on_change is OnChange.RELOAD:
        await ctx.systemd.tell(unit, timeout_seconds=service.start_timeout_seconds)
        return f"{unit} reloaded"
    await ctx.systemd.signal_main(unit, environment.signal)
    return f"{unit} told by SIG{environment.signal}"


async def _restart(ctx: Context, service: Service) -> str:
    units = ctx.units
    assert units is not None
    scene = await units.look([service])
    state = await units.systemd.state(service.unit)
    note, started = await units.start_one(service, {state.invocation})
    known = await units.load()
    boot = await asyncio.to_thread(processes.boot_id)
    await units.change(
        known,
        started={**known.started, service.unit: started},
        boot=boot,
        cursor=scene.cursor,
    )
    return note
