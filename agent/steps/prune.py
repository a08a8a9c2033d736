"""Remove what is beyond retention: releases, bundles, logs, and what was kept for an undo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.archive import removal
from agent.environment import changes as environment
from agent.files import restore
from agent.model.deployment import Outcome
from agent.model.errors import Code, from_os_error
from agent.model.release import Layout
from agent.steps.context import Context, Keep, Result
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Remove everything that ctx.keep() does not name."""
    return await run_blocking(ctx.cancel, _prune, ctx)


def _prune(ctx: Context) -> Result:
    layout = Layout(ctx.settings.state_dir)
    keep = ctx.keep()
    try:
        if ctx.deployment.outcome is not Outcome.INCONSISTENT:
            restore.forget(ctx.work_dir)  # else a person may need what was kept
            environment.forget(ctx.work_dir)
        removed = 0
        for path in _doomed(layout, keep):
            ctx.cancel.check()
            if path.is_dir() and not path.is_symlink():
                removal.remove_tree(path, ctx.cancel)
            else:
                path.unlink(missing_ok=True)
            removed += 1
    except OSError as error:
        raise from_os_error(error, "remove old releases", code=Code.INTERNAL) from error
    return Result(note=f"{removed} removed" if removed else "")


def _doomed(layout: Layout, keep: Keep) -> Iterator[Path]:
    for path in sorted(layout.releases.iterdir()):
        if path.name.split(".")[0] not in keep.releases or path.name.endswith(".partial"):
            yield path
    for path in sorted(layout.bundles.iterdir()):
        # what a retry of the newest one goes on with stays as well
        if path.name.removesuffix(".partial") not in keep.bundles:
            yield path
    for path in sorted((layout.state_dir / "deployments").iterdir()):
        if path.name not in keep.deployments:
            yield path
