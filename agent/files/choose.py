"""Choose what is done with one path, from what the plan wants there and what is on the host."""

from __future__ import annotations

import hashlib
import os
import stat
from enum import StrEnum
from typing import NamedTuple

from agent.model.appspec import FileExistsBehavior


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

COLUMNS = (
    "path, action, kind, ours, coalesce(old_mode, mode), coalesce(old_uid, uid),"
    " coalesce(old_gid, gid), coalesce(old_size, size), coalesce(old_mtime_ns, mtime_ns),"
    " coalesce(old_kind, kind), intact, was, mode, uid, gid, size, digest, target,"
    " acl IS NOT NULL OR context IS NOT NULL, coalesce(old_digest, digest)"
)


class Row(NamedTuple):
    """One path of the plan: the COLUMNS of its actions. old_...: as committed here."""

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


class Choice(NamedTuple):
    """What is done with a path.

    detail:   why it is a conflict.
    mtime_ns: of a file that is adopted as it is.
    """

    action: Action
    was: str | None
    intact: bool
    detail: str = ""
    mtime_ns: int | None = None


def choose(row: Row, found: os.stat_result | None, behavior: FileExistsBehavior) -> Choice:
    """What is done with a path; found: the status of what is there. Raises OSError."""
    was = None if found is None else kind_of(found.st_mode)
    intact = found is not None and row.ours > 0 and _is_intact(row, found)
    action = _action(row, found, was, intact=intact)
    if action is Action.CONFLICT:
        return Choice(action, was, intact, mismatch(row, was))
    if action is not None:
        return Choice(action, was, intact)
    assert found is not None
    action, detail = _for_stranger(row, found, behavior)
    mtime_ns = found.st_mtime_ns if action is Action.ADOPT else None
    return Choice(action, was, intact, detail, mtime_ns)


def kind_of(mode: int) -> str:
    """file, dir, link or other, of a status's mode."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _is_intact(row: Row, found: os.stat_result) -> bool:
    if row.old_kind == "dir":
        return stat.S_ISDIR(found.st_mode)
    if row.old_kind == "link":
        return stat.S_ISLNK(found.st_mode) and _link_digest(row.path) == row.old_digest
    return stat.S_ISREG(found.st_mode) and (
        (found.st_mtime_ns, found.st_size, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
        == (row.old_mtime_ns, row.old_size, row.old_mode, row.old_uid, row.old_gid)
    )


def is_edited(row: Row, found: os.stat_result) -> bool:
    """Whether the content of ours was changed by others. A new owner or mode is no such loss."""
    if row.old_kind == "dir":
        return False
    if row.old_kind == "link" or not stat.S_ISREG(found.st_mode):
        return not _is_intact(row, found)
    return (found.st_mtime_ns, found.st_size) != (row.old_mtime_ns, row.old_size)


def _link_digest(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(os.readlink(path))).digest()


def _action(
    row: Row, found: os.stat_result | None, was: str | None, *, intact: bool
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


def _has_wanted(row: Row, found: os.stat_result) -> bool:
    """Whether owner, group and mode are as wanted, where anything is wanted."""
    pairs = (
        (row.mode, stat.S_IMODE(found.st_mode)),
        (row.uid, found.st_uid),
        (row.gid, found.st_gid),
    )
    return all(wanted is None or wanted == is_there for wanted, is_there in pairs)


# what is there and not ours


def _for_stranger(
    row: Row, found: os.stat_result, behavior: FileExistsBehavior
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
        detail = mismatch(row, kind_of(found.st_mode))
    return Action.CONFLICT, detail


def _digest(path: str, found: os.stat_result) -> bytes:
    if stat.S_ISLNK(found.st_mode):
        return _link_digest(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


_WORDS = {"file": "a file", "dir": "a folder", "link": "a symlink", "other": "a device or the like"}


def mismatch(row: Row, was: str | None) -> str:
    """What is in the way, in words."""
    if was is None:
        return "it belongs to the other application, though it is missing now"
    if was == row.kind:
        return f"{_WORDS[was]} is here"
    return f"it is {_WORDS[was]} here, and {_WORDS[row.kind]} in the bundle"
