"""Compare what a plan wants with what is on the host, and choose each path's action.

Runs twice: when the plan is made, and again just before the install, since hooks run in between
(an `rm -rf` in BeforeInstall is common).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from agent.files import planfile, walk
from agent.model.appspec import FileExistsBehavior
from agent.system.cancel import Cancel


class Action(StrEnum):
    """What is done with a path. The values are stored: never change one."""

    ADD = "add"
    REPLACE = "replace"
    KEEP = "keep"
    ADOPT = "adopt"  # it is not ours, and just what is wanted: ours from now on
    RETAIN = "retain"  # it is not ours, and stays so
    REMOVE = "remove"
    MKDIR = "mkdir"
    MERGE = "merge"
    RMDIR = "rmdir"
    CONFLICT = "conflict"


NOT_TOUCHED = frozenset({Action.KEEP, Action.ADOPT, Action.RETAIN, Action.MERGE, Action.CONFLICT})

_BATCH = 2000
_LISTED = 20
_QUERY = """
SELECT path, action, kind, ours, coalesce(old_mode, mode), coalesce(old_uid, uid),
    coalesce(old_gid, gid), coalesce(old_size, size), coalesce(old_mtime_ns, mtime_ns),
    coalesce(old_kind, kind), intact, was, mode, uid, gid, size, digest, target,
    acl IS NOT NULL OR context IS NOT NULL, coalesce(old_digest, digest)
FROM actions WHERE path >= ? ORDER BY path LIMIT ?
"""


class _Row(NamedTuple):
    """One path of the plan. old_...: as committed here."""

    path: str
    action: str
    kind: str
    ours: int
    old_mode: int | None
    old_uid: int | None
    old_gid: int | None
    old_size: int
    old_mtime_ns: int
    old_kind: str
    intact: int
    was: str | None
    mode: int | None
    uid: int | None
    gid: int | None
    size: int
    digest: bytes
    target: str | None
    is_special: int
    old_digest: bytes


@dataclass(slots=True)
class Findings:
    """What a comparison met.

    touched:  the existing folders in which something will change.
    changed:  how many of ours others have edited; listed: the first of them.
    replaced: how many files that are not ours are replaced.
    cleared:  our folders that give way to a file or a link.
    """

    touched: set[str] = field(default_factory=set)
    changed: int = 0
    listed: list[str] = field(default_factory=list)
    replaced: int = 0
    cleared: list[str] = field(default_factory=list)


def compare(
    plan: sqlite3.Connection, behavior: FileExistsBehavior, *, first: bool, cancel: Cancel
) -> Findings:
    """Set each path's action, and save conflicts; first: this makes the plan.

    Reads each path's status once, in the order of the paths, and nothing below a folder that is
    not there.
    """
    plan.execute("DELETE FROM findings WHERE kind = 'conflict'")
    findings = Findings()
    start, missing, beyond = "", "", ""
    while batch := plan.execute(_QUERY, (start, _BATCH)).fetchall():
        cancel.check()
        updates: list[tuple[object, ...]] = []
        for row in batch:
            path = row[0]
            if path < beyond and path.startswith(missing):
                continue
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                found = None
                if row[2] == "dir":
                    missing, beyond = planfile.below(path)
                    if row[1] != Action.MKDIR:  # else they are set so already
                        _nothing_below(plan, (missing, beyond), first=first)
            if found is not None and row[1] == Action.KEEP and _is_as_committed(row, found):
                continue
            _choose(plan, _Row._make(row), found, behavior, findings, updates)
        plan.executemany(
            "UPDATE actions SET action = ?, was = ?, intact = intact AND (? OR ?),"
            " old_mtime_ns = coalesce(?, old_mtime_ns) WHERE path = ?",
            [(a, w, i, not first, m, p) for a, w, i, m, p in updates],
        )
        start = max(f"{batch[-1][0]}\0", beyond)
    for path in findings.cleared:
        _check_cleared(plan, path)
    return findings


def _is_as_committed(row: Sequence[object], found: os.stat_result) -> bool:
    """Whether a file is as this application's committed revision left it."""
    return (
        row[2] == "file"
        and found.st_mtime_ns == row[8]
        and found.st_size == row[7]
        and found.st_mode == row[4] | stat.S_IFREG  # type: ignore[operator]
        and found.st_uid == row[5]
        and found.st_gid == row[6]
    )


def _nothing_below(plan: sqlite3.Connection, bounds: tuple[str, str], *, first: bool) -> None:
    plan.execute(
        "UPDATE actions SET was = NULL, intact = intact AND ?,"
        " action = CASE WHEN ours = 3 THEN action WHEN kind = 'dir' THEN 'mkdir' ELSE 'add' END"
        " WHERE path >= ? AND path < ? AND ours <> -1"
        " AND (was IS NOT NULL OR intact > ? OR action NOT IN ('add', 'mkdir'))",
        (not first, *bounds, not first),
    )


def _choose(
    plan: sqlite3.Connection,
    row: _Row,
    found: os.stat_result | None,
    behavior: FileExistsBehavior,
    findings: Findings,
    updates: list[tuple[object, ...]],
) -> None:
    was = None if found is None else kind_of(found.st_mode)
    intact = found is not None and row.ours > 0 and _is_intact(row, found)
    action = _action(row, found, was, intact=intact)
    mtime_ns = None
    if action is None:
        assert found is not None
        action, detail = _for_stranger(row, found, behavior)
        if action is Action.ADOPT:
            mtime_ns = found.st_mtime_ns
        if action is Action.CONFLICT:
            planfile.add_finding(plan, "conflict", detail, path=row.path)
    elif action is Action.CONFLICT:
        planfile.add_finding(plan, "conflict", _mismatch(row, was), path=row.path)
    if found is not None and row.ours > 0 and row.intact and _is_edited(row, found):
        findings.changed += 1
        if len(findings.listed) < _LISTED:
            findings.listed.append(row.path)
    if action is Action.REPLACE and row.ours == 0:
        findings.replaced += 1
    if action is Action.REPLACE and was == "dir" and row.kind != "dir":
        findings.cleared.append(row.path)
    if action not in NOT_TOUCHED and (was is not None or row.ours != 3):
        findings.touched.add(walk.split(row.path)[0])
    if (action, was, mtime_ns) != (row.action, row.was, None) or intact < row.intact:
        updates.append((action, was, intact, mtime_ns, row.path))


def kind_of(mode: int) -> str:
    """file, dir, link or other, of a status's mode."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _is_intact(row: _Row, found: os.stat_result) -> bool:
    if row.old_kind == "dir":
        return stat.S_ISDIR(found.st_mode)
    if row.old_kind == "link":
        return stat.S_ISLNK(found.st_mode) and _link_digest(row.path) == row.old_digest
    return stat.S_ISREG(found.st_mode) and (
        (found.st_mtime_ns, found.st_size, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
        == (row.old_mtime_ns, row.old_size, row.old_mode, row.old_uid, row.old_gid)
    )


def _is_edited(row: _Row, found: os.stat_result) -> bool:
    """Whether the content of ours was changed by others. A new owner or mode is no such loss."""
    if row.old_kind == "dir":
        return False
    if row.old_kind == "link" or not stat.S_ISREG(found.st_mode):
        return not _is_intact(row, found)
    return (found.st_mtime_ns, found.st_size) != (row.old_mtime_ns, row.old_size)


def _link_digest(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(os.readlink(path))).digest()


def _action(
    row: _Row, found: os.stat_result | None, was: str | None, *, intact: bool
) -> Action | None:
    """The action for one path; None where something that is not ours is in the way."""
    if row.ours == -1:
        return Action.CONFLICT
    if row.ours == 3:
        return Action.RMDIR if row.kind == "dir" else Action.REMOVE
    if found is None:
        return Action.MKDIR if row.kind == "dir" else Action.ADD
    is_ours = row.ours > 0 and was == row.old_kind
    if row.kind == "dir":
        if was == "dir":
            if not is_ours:
                return Action.MERGE
            return Action.KEEP if row.ours == 1 and _has_wanted(row, found) else Action.REPLACE
        return Action.REPLACE if is_ours else Action.CONFLICT
    if was in ("dir", "other"):
        return Action.REPLACE if is_ours else Action.CONFLICT
    if row.ours == 0 or row.old_kind == "dir":
        return None
    return Action.KEEP if row.ours == 1 and intact else Action.REPLACE


def _has_wanted(row: _Row, found: os.stat_result) -> bool:
    """Whether owner, group and mode are as wanted, where anything is wanted."""
    pairs = (
        (row.mode, stat.S_IMODE(found.st_mode)),
        (row.uid, found.st_uid),
        (row.gid, found.st_gid),
    )
    return all(wanted is None or wanted == is_there for wanted, is_there in pairs)


# what is there and not ours


def _for_stranger(
    row: _Row, found: os.stat_result, behavior: FileExistsBehavior
) -> tuple[Action, str]:
    """What file_exists_behavior means for a file or link that is not ours; why it is a conflict."""
    if behavior is FileExistsBehavior.RETAIN:
        return Action.RETAIN, ""
    seen = (found.st_size, found.st_mtime_ns)
    if row.action == Action.ADOPT and seen == (row.size, row.old_mtime_ns):
        return Action.ADOPT, ""  # hashed when the plan was made
    here = _digest(row.path, found)
    if kind_of(found.st_mode) == row.kind and here == row.digest:
        is_link = row.kind == "link"
        same = is_link or (_has_wanted(row, found) and not row.is_special)
        return (Action.ADOPT if same else Action.REPLACE), ""
    if behavior is FileExistsBehavior.OVERWRITE:
        return Action.REPLACE, ""
    detail = f"sha256 {here.hex()[:12]} is here, {row.digest.hex()[:12]} in the bundle"
    if kind_of(found.st_mode) != row.kind:
        detail = _mismatch(row, kind_of(found.st_mode))
    return Action.CONFLICT, detail


def _digest(path: str, found: os.stat_result) -> bytes:
    if stat.S_ISLNK(found.st_mode):
        return _link_digest(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


_WORDS = {"file": "a file", "dir": "a folder", "link": "a symlink", "other": "a device or the like"}


def _mismatch(row: _Row, was: str | None) -> str:
    if was is None:
        return "it belongs to the other application, though it is missing now"
    if was == row.kind:
        return f"{_WORDS[was]} is here"
    return f"it is {_WORDS[was]} here, and {_WORDS[row.kind]} in the bundle"


def _check_cleared(plan: sqlite3.Connection, path: str) -> None:
    """A folder of ours gives way to a file or link only if all that it holds is ours, too."""
    stranger = walk.find_stranger(plan, path, where="ours = 3")
    if stranger is not None:
        detail = f"it is a folder here, and none in the bundle, and holds {stranger}"
        planfile.add_finding(plan, "conflict", detail, path=path)
