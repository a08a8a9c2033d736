"""Bring the bundle into the bundle store, hashed while it arrives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from agent.archive import copying, folder, kinds
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
    digest, size = await run_blocking(ctx.cancel, _fetch, ctx)
    revision = dataclasses.replace(ctx.deployment.revision, digest=digest)
    return Result(note=f"{size} bytes, sha256 {digest[:12]}", revision=revision)


def _fetch(ctx: Context) -> tuple[str, int]:
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
    except AgentError:
        partial.unlink(missing_ok=True)
        raise


def _into_store(ctx: Context, source: Path, partial: Path) -> tuple[str, int]:
    limits = ctx.settings.limits
    options = {"limits": limits, "cancel": ctx.cancel, "progress": ctx.progress}
    if kinds.detect(source) is kinds.Kind.DIRECTORY:
        digest, size = folder.pack_folder(source, partial, **options)
    else:
        digest, size = copying.copy_hashed(source, partial, **options)
    partial.rename(partial.with_name(digest))
    return digest, size
