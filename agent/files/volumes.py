"""File systems as mounts: which one a path lies on, and the space that a plan needs there."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from agent.files import planfile
from agent.model.settings import Limits

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Volumes:
    """The mounts of this host, read once. Paths are without symlinks.

    Mounts and not devices: a bind mount is the same device, and yet no link or rename crosses it.
    """

    def __init__(self) -> None:
        text = _MOUNTS.read_text(errors="surrogateescape") if _MOUNTS.exists() else ""
        points = {_unescape(line.split(" ")[4]) for line in text.splitlines()} | {"/"}
        self.mounts = sorted(points, key=len, reverse=True)

    def mount_of(self, path: str) -> str:
        """The mount point above a path, which itself need not exist."""
        for mount in self.mounts:
            if path == mount or path.startswith(planfile.below(mount)[0]):
                return mount
        return "/"

    def volume_of(self, folder: str) -> str:
        """What tells apart places that no hard link or rename connects; the folder exists."""
        return f"{os.lstat(folder).st_dev}:{self.mount_of(folder)}"  # subvolumes: by device

    def used_by(self, plan: sqlite3.Connection) -> list[str]:
        """The mounts that a plan has paths on, the outermost first."""
        return [mount for mount in reversed(self.mounts) if self._has_paths(plan, mount)]

    def _has_paths(self, plan: sqlite3.Connection, mount: str) -> bool:
        where, values = self.within(mount)
        query = f"SELECT EXISTS (SELECT 1 FROM actions WHERE {where})"  # noqa: S608
        return bool(plan.execute(query, values).fetchone()[0])

    def within(self, mount: str) -> tuple[str, list[str]]:
        """SQL that holds for the paths below a mount, those on inner mounts excepted."""
        first, beyond = planfile.below(mount)
        clauses, values = ["path >= ? AND path < ?"], [first, beyond]
        for inner in self.mounts:
            if inner != mount and inner.startswith(first):
                clauses.append("NOT (path >= ? AND path < ?)")
                values += planfile.below(inner)
        return " AND ".join(clauses), values


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def choose_copies(plan: sqlite3.Connection, volumes: Volumes, tree: Path) -> None:
    """Mark as copies what lies on another file system than the release."""
    home = volumes.mount_of(os.path.realpath(tree))
    for mount in volumes.used_by(plan):
        if mount != home:
            where, values = volumes.within(mount)
            plan.execute(
                f"UPDATE actions SET how = 'copy' WHERE how = 'link' AND {where}",  # noqa: S608
                values,
            )


_NEEDS = """
SELECT
    coalesce(sum(CASE WHEN action = 'mkdir' THEN 4096 WHEN how = 'copy' THEN (size + 4095) / 4096
        * 4096 ELSE 64 END), 0),
    coalesce(sum(action = 'mkdir' OR how = 'copy' OR kind = 'link'), 0)
FROM actions WHERE action IN ('add', 'replace', 'mkdir') AND
"""  # what is replaced is kept until the commit, and so frees nothing; 64: an entry of a folder


def check_space(plan: sqlite3.Connection, volumes: Volumes, limits: Limits) -> None:
    """Save what each file system needs and has; too little of it is a problem."""
    for mount in volumes.used_by(plan):
        where, values = volumes.within(mount)
        needed_bytes, needed_inodes = plan.execute(_NEEDS + where, values).fetchone()
        status = os.statvfs(mount)
        free_bytes = status.f_bavail * status.f_frsize
        # btrfs makes inodes as it needs them, and counts none
        free_inodes = status.f_favail if status.f_files else 2**63 - 1
        plan.execute(
            "INSERT OR REPLACE INTO space VALUES (?, ?, ?, ?, ?)",
            (mount, needed_bytes, free_bytes, needed_inodes, free_inodes),
        )
        if needed_bytes and needed_bytes + limits.free_bytes > free_bytes:
            text = (
                f"{mount}: {needed_bytes} bytes are needed, and {limits.free_bytes} stay free,"
                f" but only {free_bytes} are free; free some space there"
            )
            planfile.add_finding(plan, "problem", text, path=mount)
        if needed_inodes and needed_inodes + limits.free_inodes > free_inodes:
            text = (
                f"{mount}: {needed_inodes} inodes are needed, and {limits.free_inodes} stay free,"
                f" but only {free_inodes} are free; remove some files there"
            )
            planfile.add_finding(plan, "problem", text, path=mount)
