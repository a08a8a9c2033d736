"""Install the files of the plan; undo puts back, exactly, what was there."""

from __future__ import annotations

from agent.environment import changes, snapshots
from agent.files import apply, planfile
from agent.model.appspec import EnvironmentFile
from agent.model.errors import AgentError, Interrupted
from agent.steps.context import Context, Result
from agent.system import process
from agent.system.threads import run_blocking
from agent.units import unitfiles


async def do(ctx: Context) -> Result:
    """Carry the plan out; where that changes unit files, systemd reads them again, once."""
    units = ctx.units
    has_unit_files = bool(await _unit_files(ctx))
    if units is not None and has_unit_files:
        await units.note_reload_due(is_due=True)  # before they change: the undo reloads, too
    changed = await run_blocking(
        ctx.cancel,
        apply.install,
        ctx.work_dir,
        capture=process.capture_blocking,
        progress=ctx.progress,
        cancel=ctx.cancel,
    )
    note = f"{changed} paths changed{await _write_environment(ctx)}"
    if units is not None and has_unit_files:
        if any(file.is_changed for file in await _unit_files(ctx)):
            await units.reload()
            return Result(note=f"{note}, systemd reloaded")
        await units.note_reload_due(is_due=False)
    return Result(note=note)


async def undo(ctx: Context) -> None:
    """Put back what was there, exactly."""
    await ctx.put_files_back()


async def _write_environment(ctx: Context) -> str:
    """Write the environments that the plan chose, and remove those of the current revision only."""
    new = snapshots.files_of(await ctx.appspec(ctx.release))
    old = await _old_environment(ctx)
    if not new and not old:
        return ""
    return await run_blocking(
        ctx.cancel, changes.install, ctx.work_dir, new, old, ctx.release.environment
    )


async def _old_environment(ctx: Context) -> tuple[EnvironmentFile, ...]:
    """The current revision's; none where its appspec cannot be read."""
    if ctx.current is None:
        return ()
    try:
        return snapshots.files_of(await ctx.appspec(ctx.current))
    except Interrupted:
        raise
    except AgentError as error:
        version = ctx.current.revision.version
        ctx.log.line(f"warning: the environment of {version} is not known: {error.message}")
        return ()


async def _unit_files(ctx: Context) -> list[unitfiles.UnitFile]:
    path = ctx.work_dir / planfile.NAME
    return await run_blocking(ctx.cancel, unitfiles.find_unit_files, path)
