"""Make the plan of a deployment: everything that can be checked, before anything is touched."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.files import acl, choose, compare, early, owners, planfile, selinux, volumes, wanted
from agent.files.early import Committed
from agent.files.owners import Capture
from agent.files.parts import find_parts
from agent.model.appspec import AppSpec, FileExistsBehavior
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.release import Release
from agent.model.settings import Limits
from agent.system import process
from agent.system.cancel import Cancel

_DETAILS = 1000  # lines of an error; agentctl plan has them all


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a plan is made from.

    current:  what is committed now: an undo restores from it what hooks took away.
    work_dir: where the plan goes; it exists.
    behavior: the deployment's own; the appspec's wins.
    is_just_linked: whether the release was unpacked just now, what it has in common with the one
        before compared and linked.
    """

    application: str
    deployment_id: str
    release: Release
    current: Release | None
    appspec: AppSpec
    work_dir: Path
    state_dir: Path
    limits: Limits
    behavior: FileExistsBehavior = FileExistsBehavior.DISALLOW
    is_just_linked: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """counts: of paths by action; bytes: to copy, not to link."""

    counts: dict[str, int]
    bytes: int
    conflicts: int
    problems: int
    warnings: tuple[str, ...]


def make_plan(
    request: PlanRequest,
    committed: Committed,
    *,
    problems: Sequence[str] = (),
    warnings: Sequence[str] = (),
    capture: Capture = process.capture_blocking,
    cancel: Cancel,
) -> Summary:
    """Write work_dir/plan.db, complete and on the disk. Touches nothing else; blocks.

    problems: what others found already (hooks whose user does not exist); the plan refuses on it.
    warnings: what others found that is worth knowing.
    Raises AgentError when the plan cannot be made; what is found to be wrong is in the plan.
    """
    try:
        found = [("problem", text) for text in problems]
        found += [("warning", text) for text in warnings]
        return _make(request, committed, found, capture, cancel)
    except OSError as error:
        doing = f"look at {error.filename}" if error.filename else "make the plan"
        raise from_os_error(error, doing, code=Code.PLAN_REFUSED) from error


def _make(
    request: PlanRequest,
    committed: Committed,
    known: Sequence[tuple[str, str]],
    capture: Capture,
    cancel: Cancel,
) -> Summary:
    with planfile.making(request.work_dir / planfile.NAME, cancel) as plan:
        index = f"{request.release.index.absolute().as_uri()}?mode=ro"
        plan.execute("ATTACH DATABASE ? AS release", (index,))
        committed.attach(plan)
        planfile.note_committed(plan)
        _save_request(plan, request)
        for kind, text in known:
            planfile.add_finding(plan, kind, text)
        parts = find_parts(plan, request.appspec, request.application)
        linked_parts = None
        if request.is_just_linked and not request.appspec.permissions:
            linked_parts = request.release.tree, parts
        with early.looking(committed, request.application, cancel, linked_parts) as look:
            wanted.expand(plan, request.appspec, request.application, parts)
            found = compare.compare(plan, _behavior(request), cancel, look)
        planfile.index_changes(plan)
        _name_applications(plan, request.application)
        owners.name_owners(plan, capture, replaced=found.replaced)
        _warn_of_changes(plan, found)
        _check_places(plan, request, found)
        if any(each.acls for each in request.appspec.permissions):
            acl.save_acls(plan, request.work_dir, capture)
        if any(each.context for each in request.appspec.permissions):
            selinux.check_tools(plan, capture)
        mounts = volumes.Volumes()
        volumes.mark_copies(plan, mounts, request.release.tree)
        volumes.tally(plan, mounts, request.application)
        volumes.check_space(plan, request.limits)
        return _summary(plan)


def _behavior(request: PlanRequest) -> FileExistsBehavior:
    return request.appspec.file_exists_behavior or request.behavior


def _save_request(plan: sqlite3.Connection, request: PlanRequest) -> None:
    planfile.save_words(
        plan,
        application=request.application,
        deployment_id=request.deployment_id,
        release=str(request.release.tree),
        current=str(request.current.tree) if request.current else "",
        behavior=_behavior(request),
    )


def _name_applications(plan: sqlite3.Connection, application: str) -> None:
    plan.execute(
        "UPDATE findings SET owner ="
        " (SELECT 'application ' || i.application FROM committed.installed i"
        " WHERE i.path = findings.path)"
        " WHERE kind = 'conflict' AND path IN"
        " (SELECT path FROM committed.installed WHERE application <> ?)",
        (application,),
    )


def _warn_of_changes(plan: sqlite3.Connection, found: compare.Findings) -> None:
    for path in found.listed:
        text = f"{path} was changed on this host since it was installed; the change is lost"
        planfile.add_finding(plan, "warning", text, path=path)
    if found.changed > len(found.listed):
        text = f"{found.changed - len(found.listed)} more files were changed since their install"
        planfile.add_finding(plan, "warning", text)


def _check_places(plan: sqlite3.Connection, request: PlanRequest, found: compare.Findings) -> None:
    """Problems of folders: the agent's own state, those that cannot be written to."""
    state_dir = os.path.realpath(request.state_dir)
    inside = plan.execute(
        "SELECT path FROM actions WHERE path = ? OR path >= ? AND path < ? LIMIT 1",
        (state_dir, *planfile.below(state_dir)),
    ).fetchone()
    if inside:
        text = f"{inside[0]} is in the agent's own state folder; choose another destination"
        planfile.add_finding(plan, "problem", text, path=inside[0])
    for folder in sorted(found.touched):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            cause = "its file system is read-only" if read_only else "the agent's user may not"
            text = f"cannot write to {folder}: {cause}"
            planfile.add_finding(plan, "problem", text, path=folder)


def _summary(plan: sqlite3.Connection) -> Summary:
    counts = plan.execute("SELECT action, sum(count) FROM tally GROUP BY action ORDER BY action")
    copied = plan.execute(
        "SELECT coalesce(sum(bytes), 0) FROM tally"
        " WHERE action IN ('add', 'replace') AND how = 'copy'"
    )
    found = dict(plan.execute("SELECT kind, count(*) FROM findings GROUP BY kind"))
    warnings = plan.execute("SELECT text FROM findings WHERE kind = 'warning' ORDER BY id")
    return Summary(
        counts=dict(counts),
        bytes=copied.fetchone()[0],
        conflicts=found.get("conflict", 0),
        problems=found.get("problem", 0),
        warnings=tuple(row[0] for row in warnings),
    )


def summarize(path: Path) -> Summary:
    """The summary of a plan to which others may have added what they found."""
    with planfile.opened(path) as plan:
        return _summary(plan)


def refuse(path: Path) -> None:
    """Raise AgentError (PLAN_REFUSED) that lists every conflict and problem, if there is one."""
    with planfile.opened(path) as plan:
        _refuse(plan, "nothing was touched", Code.PLAN_REFUSED)


def refuse_late(plan: sqlite3.Connection) -> None:
    """The same for a plan that is open, and was made before the hooks ran."""
    _refuse(plan, "this changed since the plan was made", Code.INSTALL_FAILED)


def _refuse(plan: sqlite3.Connection, remark: str, code: Code) -> None:
    conflicts, problems = (
        plan.execute("SELECT count(*) FROM findings WHERE kind = ?", (kind,)).fetchone()[0]
        for kind in ("conflict", "problem")
    )
    if not conflicts and not problems:
        return
    details = [
        f"{path} ({owner or owners.UNKNOWN}): {text}" if kind == "conflict" else text
        for kind, path, owner, text in plan.execute(
            "SELECT kind, path, owner, text FROM findings WHERE kind <> 'warning'"
            " ORDER BY kind, id LIMIT ?",
            (_DETAILS,),
        )
    ]
    if conflicts + problems > len(details):
        details.append(f"and {conflicts + problems - len(details)} more")
    counts = []
    if conflicts:
        counts.append(f"{conflicts} file{'s' if conflicts > 1 else ''} in the way")
    if problems:
        counts.append(f"{problems} problem{'s' if problems > 1 else ''}")
    raise AgentError(
        f"cannot deploy: {' and '.join(counts)}; {remark}",
        code=code,
        details=tuple(details),
        remedy=_remedy(plan) if conflicts else "Correct them, then run: agentctl retry",
    )


def _remedy(plan: sqlite3.Connection) -> str:
    owned = plan.execute(
        "SELECT 1 FROM findings WHERE kind = 'conflict' AND owner LIKE 'application %'"
    ).fetchone()
    if owned:
        return (
            "Give each application a destination of its own, or remove the files from the other"
            " one's bundle first, then run: agentctl retry"
        )
    return (
        "Move these files away, or say in the appspec what to do with them"
        " (file_exists_behavior: OVERWRITE replaces them, RETAIN leaves them),"
        " then run: agentctl plan BUNDLE"
    )


def plan_report(path: Path, *, limit: int = 1000) -> dict[str, Any]:
    """The plan as the API gives it. limit: how many changes are listed; `truncated` more are not.

    Keys: refused, counts, bytes, changes, truncated, conflicts, problems, warnings, space.
    """
    with planfile.opened(path) as plan:
        summary = _summary(plan)
        changed = (
            f"action NOT IN ({', '.join(repr(str(each)) for each in sorted(choose.NOT_TOUCHED))})"
            " AND (ours <> 3 OR was IS NOT NULL)"
        )
        total = plan.execute(f"SELECT count(*) FROM actions WHERE {changed}").fetchone()[0]  # noqa: S608
        changes = [
            {"action": action, "path": name, "kind": kind, "detail": how or ""}
            for action, name, kind, how in plan.execute(
                f"SELECT action, path, kind, how FROM actions WHERE {changed}"  # noqa: S608
                " ORDER BY path LIMIT ?",
                (limit,),
            )
        ]
        return {
            "refused": bool(summary.conflicts or summary.problems),
            "counts": summary.counts,
            "bytes": summary.bytes,
            "changes": changes,
            "truncated": total - len(changes),
            "conflicts": _conflicts(plan),
            "problems": _texts(plan, "problem"),
            "warnings": list(summary.warnings),
            "space": _space(plan),
        }


def _conflicts(plan: sqlite3.Connection) -> list[dict[str, str]]:
    query = "SELECT path, owner, text FROM findings WHERE kind = 'conflict' ORDER BY id"
    return [
        {"path": path, "owner": owner or owners.UNKNOWN, "detail": text}
        for path, owner, text in plan.execute(query)
    ]


def _texts(plan: sqlite3.Connection, kind: str) -> list[str]:
    query = "SELECT text FROM findings WHERE kind = ? ORDER BY id"
    return [row[0] for row in plan.execute(query, (kind,))]


def _space(plan: sqlite3.Connection) -> list[dict[str, Any]]:
    names = ("mount", "needed_bytes", "free_bytes", "needed_inodes", "free_inodes")
    query = f"SELECT {', '.join(names)} FROM space ORDER BY mount"  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in plan.execute(query)]
