"""Find out everything that the deployment would do, and refuse before anything is touched."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.files import plan, planfile
from agent.formats import appspec as appspec_format
from agent.formats import manifest
from agent.formats.appspec import check_tree
from agent.hooks.runas import check_runas
from agent.model.appspec import Severity
from agent.model.errors import AgentError, Code
from agent.steps.context import Context, Result
from agent.system.threads import run_blocking


async def do(ctx: Context) -> Result:
    """Read appspec and release.json, make the plan, refuse on it."""
    return await run_blocking(ctx.cancel, _plan, ctx)


async def report(ctx: Context) -> dict[str, Any]:
    """The plan as the API gives it."""
    return await run_blocking(ctx.cancel, _report, ctx)


def _plan(ctx: Context) -> Result:
    revision = _make(ctx)
    plan.refuse(ctx.work_dir / planfile.NAME)
    return Result(revision=revision)


def _report(ctx: Context) -> dict[str, Any]:
    revision = _make(ctx)
    report = plan.plan_report(ctx.work_dir / planfile.NAME)
    return {**report, "application": revision.application, "version": revision.version}


def _make(ctx: Context):
    tree = ctx.release.tree
    appspec, problems = appspec_format.load_appspec(tree)
    problems = [*problems, *check_tree(appspec, tree)]
    errors = tuple(str(p) for p in problems if p.severity is Severity.ERROR)
    if errors:
        raise AgentError("cannot use the appspec", code=Code.APPSPEC_INVALID, details=errors)
    for problem in problems:
        ctx.log.line(f"warning: {problem}")
    revision = ctx.deployment.revision
    path = tree / "release.json"
    if path.is_file():
        found = manifest.parse_manifest(path.read_bytes())
        revision = dataclasses.replace(revision, version=found.version)
    hooks = [hook for each in appspec.hooks.values() for hook in each]
    request = plan.PlanRequest(
        application=revision.application,
        deployment_id=ctx.deployment.id,
        release=ctx.release,
        current=ctx.current,
        appspec=appspec,
        work_dir=ctx.work_dir,
        state_dir=ctx.settings.state_dir,
        limits=ctx.settings.limits,
    )
    plan.make_plan(request, ctx.installed, problems=check_runas(hooks), cancel=ctx.cancel)
    return revision
