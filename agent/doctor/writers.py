"""Who may change what lies at a path, through its own mode or that of a folder above it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Writer:
    """who: such as "user alice"; place: the path that lets them."""

    who: str
    place: Path
    is_everybody: bool = False

    def __str__(self) -> str:
        return self.who


def find_writers(path: Path, trusted: Collection[int]) -> list[Writer]:
    """Who besides root and the `trusted` users may write to a path; raises OSError."""
    real = path.resolve(strict=True)
    found: dict[str, Writer] = {}
    for place in (real, *real.parents):
        status = place.stat()
        # in a sticky folder others' entries can neither be renamed nor removed (inode(7))
        is_safe = place != real and bool(status.st_mode & stat.S_ISVTX)
        for each in _of(place, status, trusted, is_safe=is_safe):
            found.setdefault(each.who, each)
    return list(found.values())


def _of(
    place: Path, status: os.stat_result, trusted: Collection[int], *, is_safe: bool
) -> list[Writer]:
    found = []
    if status.st_uid not in (0, *trusted):
        found.append(Writer(f"user {_user(status.st_uid)}", place))
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0 and not is_safe:
        found.append(Writer(f"group {_group(status.st_gid)}", place))
    if status.st_mode & stat.S_IWOTH and not is_safe:
        found.append(Writer("everybody", place, is_everybody=True))
    return found


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
