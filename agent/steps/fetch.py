"""Bring the bundle into the bundle store, hashed while it arrives."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from agent.archive import fetch_copy, folder, kinds
from agent.archive.fetch_copy import Copied
from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code, TransientError, from_os_error
from agent.model.release import Layout
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Bring the bundle to <state>/bundles/<digest>; nothing to do for a release that is here."""
    if ctx.release.tree.exists():
        return Result(note="the release is on this host already")
    revision = ctx.deployment.revision
    if await run_blocking(ctx.cancel, _is_whole, ctx):
        return Result(note="the bundle is on this host already")
    if "://" in revision.bundle:
        copied = await _fetch_remote(ctx, revision)
    else:
        copied = await run_blocking(ctx.cancel, _fetch_local, ctx)
    revision = dataclasses.replace(revision, digest=copied.sha256)
    return Result(note=f"{copied.size} bytes, sha256 {copied.sha256[:12]}", revision=revision)


def _is_whole(ctx: Context) -> bool:
    """Whether the bundle is in the store, undamaged; a damaged one is removed."""
    bundle = ctx.release.bundle
    if not ctx.deployment.revision.digest or not bundle.exists():
        return False
    if fetch_copy.digest_of(bundle, ctx.cancel) == ctx.deployment.revision.digest:
        return True
    ctx.log.line(f"warning: {bundle} was damaged on this host's disk: it is fetched again")
    bundle.unlink()
    return False


async def _fetch_remote(ctx: Context, revision: Revision) -> Copied:
    """Stream it; what an earlier attempt left of the same bundle is gone on with."""
    name = revision.digest or ctx.deployment.id
    partial = Layout(ctx.settings.state_dir).bundles / f"{name}.partial"
    await run_blocking(ctx.cancel, _check_room, ctx, revision.size)
    fetched = await ctx.bundles.fetch(
        revision,
        partial,
        limit_bytes=ctx.settings.limits.bundle_bytes,
        cancel=ctx.cancel,
        progress=ctx.progress,
    )
    copied = Copied(fetched.sha256, fetched.size)
    await run_blocking(ctx.cancel, _into_store, revision, partial, copied)
    return copied


def _check_room(ctx: Context, size: int) -> None:
    """Refuse what the file system has no room for, before it is full of half of it."""
    folder_of_bundles = Layout(ctx.settings.state_dir).bundles
    found = os.statvfs(folder_of_bundles)
    free = found.f_bavail * found.f_frsize
    if size + ctx.settings.limits.free_bytes > free:
        raise TransientError(
            f"cannot fetch a bundle of {size} bytes: {folder_of_bundles} has {free} bytes free,"
            f" of which {ctx.settings.limits.free_bytes} stay free",
            code=Code.DISK_FULL,
            remedy="Free space on that file system, then run: agentctl retry",
        )


def _fetch_local(ctx: Context) -> Copied:
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
        copied = _copy(ctx, source, partial)
        _into_store(ctx.deployment.revision, partial, copied)
        return copied
    except OSError as error:
        raise from_os_error(error, f"fetch {source}", code=Code.BUNDLE_MISSING) from error
    except AgentError as error:
        error.where = error.where or str(source)
        partial.unlink(missing_ok=True)
        raise


def _copy(ctx: Context, source: Path, partial: Path) -> Copied:
    limits = ctx.settings.limits
    if kinds.detect(source) is kinds.Kind.DIRECTORY:
        return folder.pack_folder(
            source, partial, limits=limits, cancel=ctx.cancel, progress=ctx.progress
        )
    return fetch_copy.copy_hashed(
        source,
        partial,
        limit_bytes=limits.bundle_bytes,
        cancel=ctx.cancel,
        progress=ctx.progress,
    )


def _into_store(revision: Revision, partial: Path, copied: Copied) -> None:
    """Give the bundle its name, its digest, if that is the one that is meant.

    Without manifest and signature a path on this host may hold other bytes at a retry.
    """
    is_meant = bool(revision.size or revision.signed_by)
    if is_meant and revision.digest != copied.sha256:
        partial.unlink()
        known_by = "its manifest says" if revision.size else "what was signed has"
        raise AgentError(
            f"cannot use {revision.bundle}: its sha256 is {copied.sha256}, and {known_by}"
            f" {revision.digest}",
            code=Code.BUNDLE_DAMAGED,
            remedy=f"Somebody changed or replaced the bundle: publish {revision.version} again,"
            " by: agentctl push",
            where=revision.bundle,
        )
    partial.rename(partial.with_name(copied.sha256))
