"""Make sure that what is on this host is what was meant, before anything is built on it."""

from __future__ import annotations

from agent.archive import fetch_copy, kinds, releases
from agent.formats.appspec import load_appspec
from agent.model.errors import AgentError, Code, Conflict, Interrupted, TransientError
from agent.model.release import Release
from agent.model.settings import StopFailure
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Check digest, quarantine, and that the releases to be reused are as they were unpacked."""
    revision = ctx.deployment.revision
    cause = ctx.quarantined.get(revision.digest)
    if cause is not None:
        raise Conflict(
            f"cannot deploy {revision.version}: it is quarantined here: {cause}",
            code=Code.QUARANTINED,
            remedy=f"Deploy a newer revision, or run: agentctl retry {revision.application}",
        )
    return await run_blocking(ctx.cancel, _verify, ctx)


def _verify(ctx: Context) -> Result:
    notes = []
    if ctx.release.tree.exists():
        notes += _restore_damaged(ctx, ctx.release, thorough=True)
    else:
        _check_bundle(ctx)
    if ctx.current is not None and ctx.current.name != ctx.release.name:
        notes += _check_current(ctx, ctx.current)
    return Result(note="; ".join(notes))


def _check_current(ctx: Context, current: Release) -> list[str]:
    """Its scripts stop it now, and start it again if this deployment is undone.

    One that cannot be restored does not block a newer revision, as its failing stop does not.
    """
    try:
        return _restore_damaged(ctx, current, thorough=False) if _is_needed(current) else []
    except (Interrupted, TransientError):
        raise
    except AgentError as error:
        if ctx.settings.stop_failure is StopFailure.FAIL:
            raise
        note = f"release of the old revision {current.revision.version}: {error.message}"
        ctx.log.line(f"warning: {note}")
        return [note]


def _is_needed(release: Release) -> bool:
    """Whether hooks of it are run, or units of it are stopped and started."""
    try:
        appspec, _ = load_appspec(release.tree)
    except AgentError:
        return True  # the appspec itself is damaged
    return bool(appspec.hooks or appspec.services)


def _check_bundle(ctx: Context) -> None:
    bundle = ctx.release.bundle
    kinds.detect(bundle)
    if ctx.deployment.starts == 1:
        return
    # the bytes were hashed on their way in, but since then the host may have lost power
    if fetch_copy.digest_of(bundle, ctx.cancel) != ctx.deployment.revision.digest:
        bundle.unlink()
        raise AgentError(
            f"cannot use {bundle}: its digest is not the one that it was fetched with",
            code=Code.BUNDLE_DAMAGED,
            remedy="Check this host's disk, then run: agentctl retry",
        )


def _restore_damaged(ctx: Context, release: Release, *, thorough: bool) -> list[str]:
    damaged = releases.check_release(
        release.tree, release.index, thorough=thorough, cancel=ctx.cancel
    )
    if not damaged:
        return []
    releases.restore_files(
        release.bundle,
        release.tree,
        release.index,
        damaged,
        limits=ctx.settings.limits,
        cancel=ctx.cancel,
    )
    shown = ", ".join(damaged[:3]) + (" …" if len(damaged) > 3 else "")
    note = f"release of {release.revision.version}: restored {len(damaged)} changed files ({shown})"
    ctx.log.line(f"warning: {note}")
    return [note]
