"""Bring the bundle into the bundle store, hashed while it arrives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from agent.archive import fetch_copy, folder, kinds
from agent.model.errors import AgentError, Code, TransientError, from_os_error
from agent.model.release import Layout
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Copy the bundle to <state>/bundles/<digest>; nothing to do for a release that is here."""
    if ctx.release.tree.exists():
        return Result(note="the release is on this host already")
    if ctx.deployment.revision.digest and ctx.release.bundle.exists():
        return Result(note="the bundle is on this host already")
    copied = await run_blocking(ctx.cancel, _fetch, ctx)
    revision = dataclasses.replace(ctx.deployment.revision, digest=copied.sha256)
    return Result(note=f"{copied.size} bytes, sha256 {copied.sha256[:12]}", revision=revision)


def _fetch(ctx: Context) -> fetch_copy.Copied:
    source = Path(ctx.deployment.revision.bundle)
    partial = Layout(ctx.settings.state_dir).bundles / f"{ctx.deployment.id}.partial"
    partial.unlink(missing_ok=True)
    try:
        if not source.exists():
            raise TransientError(
                f"cannot fetch {source}: it is not there",
                code=Code.BUNDLE_MISSING,
                remedy="Put the bundle there again, then run: agentctl retry",
            )
        return _into_store(ctx, source, partial)
    except OSError as error:
        raise from_os_error(error, f"fetch {source}", code=Code.BUNDLE_MISSING) from error
    except AgentError as error:
        error.where = error.where or str(source)
        partial.unlink(missing_ok=True)
        raise


def _into_store(ctx: Context, source: Path, partial: Path) -> fetch_copy.Copied:
    limits = ctx.settings.limits
    if kinds.detect(source) is kinds.Kind.DIRECTORY:
        copied = folder.pack_folder(
            source, partial, limits=limits, cancel=ctx.cancel, progress=ctx.progress
        )
    else:
        copied = fetch_copy.copy_hashed(
            source,
            partial,
            limit_bytes=limits.bundle_bytes,
            cancel=ctx.cancel,
            progress=ctx.progress,
        )
    partial.rename(partial.with_name(copied.sha256))
    return copied
