"""Unpack the bundle into releases/<name>, complete before it gets that name."""

from __future__ import annotations

from pathlib import Path

from agent.archive import removal, unpack
from agent.model.errors import Code, from_os_error
from agent.model.release import Release
from agent.steps.context import Context, Result
from agent.system import durable
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Unpack to <name>.partial, sync, rename. Files that the current release has are linked."""
    if ctx.release.tree.exists():
        return Result(note="the release is on this host already")
    result = await run_blocking(ctx.cancel, _unpack, ctx)
    ctx.unpacked.add(ctx.release.name)
    return result


async def undo(ctx: Context) -> None:
    """Remove the release, unless it is one that this deployment only returned to."""
    if ctx.release.name == ctx.deployment.id:
        await run_blocking(ctx.cancel, _remove, ctx)


def _partial(release: Release) -> tuple[Path, Path]:
    return (
        release.tree.with_name(f"{release.name}.partial"),
        release.index.with_name(f"{release.name}.index.partial"),
    )


def _unpack(ctx: Context) -> Result:
    tree, index = _partial(ctx.release)
    try:
        removal.remove_tree(tree, ctx.cancel)
        for stale in (index, ctx.release.index):
            stale.unlink(missing_ok=True)
        reuse = None
        if ctx.current is not None and ctx.current.tree.exists() and ctx.current.index.exists():
            reuse = (ctx.current.tree, ctx.current.index)
        with durable.syncing_early(tree.parent):
            unpacked = unpack.unpack(
                ctx.release.bundle,
                tree=tree,
                index=index,
                limits=ctx.settings.limits,
                cancel=ctx.cancel,
                progress=ctx.progress,
                reuse=reuse,
            )
        durable.sync_file_system(tree)
        index.rename(ctx.release.index)
        tree.rename(ctx.release.tree)
    except OSError as error:
        raise from_os_error(error, f"unpack into {tree}", code=Code.BUNDLE_DAMAGED) from error
    for warning in unpacked.warnings:
        ctx.log.line(f"warning: {warning}")
    return Result(
        note=f"{unpacked.files} files, {unpacked.bytes} bytes, {unpacked.reused} the same as before"
    )


def _remove(ctx: Context) -> None:
    for tree in (ctx.release.tree, _partial(ctx.release)[0]):
        removal.remove_tree(tree, ctx.cancel)
    for index in (ctx.release.index, _partial(ctx.release)[1]):
        index.unlink(missing_ok=True)
