"""Find out everything that the deployment would do, and refuse before anything is touched."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.environment import changes, snapshots
from agent.environment.snapshots import Kept
from agent.files import plan, planfile
from agent.formats import appspec as appspec_format
from agent.formats import manifest
from agent.hooks import runas
from agent.model.appspec import AppSpec, Severity
from agent.model.deployment import Revision, Trigger
from agent.model.errors import AgentError, Code, from_os_error
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking
from agent.units import checks


async def do(ctx: Context) -> Result:
    """Read appspec and release.json, list every change, refuse where something is in the way."""
    revision = await _make(ctx)
    return await run_blocking(ctx.cancel, _conclude, ctx, revision)


async def report(ctx: Context) -> dict[str, Any]:
    """The plan as the API gives it; see files.plan.plan_report. Refuses nothing itself."""
    revision = await _make(ctx)
    found = await run_blocking(ctx.cancel, plan.plan_report, ctx.work_dir / planfile.NAME)
    return {**found, "application": revision.application, "version": revision.version}


async def _make(ctx: Context) -> Revision:
    """Make the plan, all that is wrong with it included; the revision as release.json has it."""
    revision = await run_blocking(ctx.cancel, _plan_files, ctx)
    request = checks.Request(
        appspec=await ctx.appspec(ctx.release),
        old_units=tuple(await ctx.old_services()),
        tree=ctx.release.tree,
        work_dir=ctx.work_dir,
    )
    await checks.check_units(ctx.systemd, request, ctx.cancel)
    await _plan_environment(ctx, request.appspec)
    return revision


async def _plan_environment(ctx: Context, appspec: AppSpec) -> None:
    """Choose the values of the services' environments, and note them in the deployment's folder.

    Consul that is away is a warning, where this host has earlier values.
    """
    old = Kept()
    if ctx.current is not None:
        old = await run_blocking(ctx.cancel, snapshots.load, ctx.current.environment)
    prefixes = [each.prefix for each in snapshots.files_of(appspec)]
    if ctx.deployment.trigger is Trigger.ROLLBACK:
        then = await run_blocking(ctx.cancel, snapshots.load, ctx.release.environment)
        choice = await snapshots.choose_then(ctx.consul, prefixes, then, old)
    else:
        choice = await snapshots.choose(ctx.consul, prefixes, old)
    await run_blocking(ctx.cancel, changes.note, ctx.work_dir, choice, old)
    await run_blocking(ctx.cancel, changes.check, ctx.work_dir, appspec, choice)


def _conclude(ctx: Context, revision: Revision) -> Result:
    summary = plan.summarize(ctx.work_dir / planfile.NAME)
    for warning in summary.warnings:
        ctx.log.line(f"warning: {warning}")
    plan.refuse(ctx.work_dir / planfile.NAME)
    counts = ", ".join(f"{count} {action}" for action, count in summary.counts.items())
    note = f"{counts}; {summary.bytes} bytes to copy"
    if summary.warnings:
        note += f"; {len(summary.warnings)} warning{'s' * (len(summary.warnings) > 1)} in the log"
    return Result(note=note, revision=revision)


def _plan_files(ctx: Context) -> Revision:
    """Plan files and hooks' users; the revision as its release.json describes it."""
    revision = _described(ctx)
    appspec, remarks = _load_appspec(ctx)
    request = plan.PlanRequest(
        application=revision.application,
        deployment_id=ctx.deployment.id,
        release=ctx.release,
        current=ctx.current,
        appspec=appspec,
        work_dir=ctx.work_dir,
        state_dir=ctx.settings.state_dir,
        limits=ctx.settings.limits,
        is_just_linked=ctx.release.name in ctx.unpacked,
    )
    hooks = [hook for hooks in appspec.hooks.values() for hook in hooks]
    problems, warnings = runas.check_runas(hooks)
    plan.make_plan(
        request,
        ctx.installed,
        problems=problems,
        warnings=(*remarks, *warnings),
        cancel=ctx.cancel,
    )
    return revision


def _load_appspec(ctx: Context) -> tuple[AppSpec, list[str]]:
    """The appspec, and its warnings for the plan. Raises AgentError with every error at once."""
    tree = ctx.release.tree
    appspec, problems = appspec_format.load_appspec(tree)
    problems = (*problems, *appspec_format.check_tree(appspec, tree))
    errors = [str(each) for each in problems if each.severity is Severity.ERROR]
    warnings = [each.without_severity() for each in problems if each.severity is Severity.WARNING]
    if errors:
        raise AgentError(
            f"cannot use {appspec.filename}: it has {len(errors)} error(s) in this bundle",
            code=Code.APPSPEC_INVALID,
            details=tuple(errors),
            remedy="Correct it and check it before publishing, by: agentctl lint FOLDER",
        )
    return appspec, warnings


def _described(ctx: Context) -> Revision:
    """The revision, with the version that release.json gives it; refuses another application's."""
    revision = ctx.deployment.revision
    path = ctx.release.tree / manifest.FILENAME
    try:
        with path.open("rb") as file:
            text = file.read(manifest.MAX_BYTES + 1)
    except FileNotFoundError:
        return revision
    except OSError as error:
        raise from_os_error(error, f"read {path.name}", code=Code.BUNDLE_REFUSED) from error
    found = manifest.parse_manifest(text)
    if found.application not in ("", revision.application):
        raise AgentError(
            f"cannot deploy {revision.application}: the bundle is of {found.application},"
            f" says its {path.name}",
            code=Code.BUNDLE_REFUSED,
            remedy=f"Publish it where the bundles of {found.application} lie",
        )
    if revision.size and found.version != revision.version:
        raise AgentError(
            f"cannot deploy {revision.version}: the bundle is of {found.version}, says its"
            f" {path.name}",
            code=Code.BUNDLE_REFUSED,
            remedy="Publish the bundle of that version: agentctl push BUNDLE",
        )
    return dataclasses.replace(
        revision, version=found.version, commit=revision.commit or found.commit
    )
