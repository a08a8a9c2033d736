"""File systems as mounts: which one a path lies on, and the space that a plan needs there."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from agent.files import planfile, unchanged
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
        self._bases = [(mount, planfile.below(mount)[0]) for mount in self.mounts]

    def mount_of(self, path: str) -> str:
        """The mount point above a path, which itself need not exist."""
        for mount, base in self._bases:
            if path == mount or path.startswith(base):
                return mount
        return "/"

    def volume_of(self, folder: str) -> str:
        """What tells apart places that no hard link or rename connects; the folder exists."""
        return f"{os.lstat(folder).st_dev}:{self.mount_of(folder)}"  # subvolumes: by device

    def used_by(self, plan: sqlite3.Connection) -> list[str]:
        """The mounts that a plan has paths on, the innermost first."""
        query = "SELECT EXISTS (SELECT 1 FROM actions WHERE path >= ? AND path < ?)"
        return [
            mount
            for mount in self.mounts
            if plan.execute(query, planfile.below(mount)).fetchone()[0]
        ]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _mount_number(mounts: Sequence[str]) -> tuple[str, list[str]]:
    """SQL for a path's mount as its number in mounts (the innermost first), and its parameters."""
    if len(mounts) < 2:
        return "0", []
    cases = [f"WHEN path >= ? AND path < ? THEN {number}" for number in range(len(mounts))]
    values = [bound for mount in mounts for bound in planfile.below(mount)]
    return f"CASE {' '.join(cases)} END", values


_TALLY_KEPT = f"""
INSERT INTO tally (action, count)
SELECT 'keep', count FROM (SELECT ? + (SELECT count(*) FROM actions)
    - (SELECT count(*) FROM actions WHERE {planfile.IS_CHANGED}) AS count)
WHERE count > 0
"""  # noqa: S608 - our own text; it takes no room, wherever it is


def mark_copies(plan: sqlite3.Connection, volumes: Volumes, tree: Path) -> None:
    """Mark as copies what lies on another file system than the release."""
    home = volumes.mount_of(os.path.realpath(tree))
    mounts = volumes.used_by(plan)
    elsewhere = [str(n) for n, mount in enumerate(mounts) if mount != home]
    if elsewhere:
        number, values = _mount_number(mounts)
        plan.execute(
            "UPDATE actions SET how = 'copy' WHERE how = 'link'"  # noqa: S608
            f" AND {number} IN ({', '.join(elsewhere)})",
            values,
        )


def tally(plan: sqlite3.Connection, volumes: Volumes, application: str) -> None:
    """Save counts and sizes; where they are links or copies must be clear."""
    mounts = volumes.used_by(plan)
    number, values = _mount_number(mounts)
    rows = plan.execute(
        f"SELECT {number} AS mount, action, kind, how, count(*), coalesce(sum(size), 0),"  # noqa: S608
        " coalesce(sum((size + 4095) / 4096 * 4096), 0) FROM actions"
        f" WHERE {planfile.IS_CHANGED} AND (ours <> 3 OR was IS NOT NULL) GROUP BY 1, 2, 3, 4",
        values,
    ).fetchall()
    plan.execute(_TALLY_KEPT, (unchanged.count(plan, application),))
    plan.executemany(
        "INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(mounts[row[0]], *row[1:]) for row in rows],
    )


_NEEDS = """
SELECT mount,
    sum(CASE WHEN action = 'mkdir' THEN 4096 * count WHEN how = 'copy' THEN blocks
        ELSE 64 * count END),
    sum(CASE WHEN kind = 'file' AND how = 'link' THEN 0 ELSE count END)
FROM tally WHERE action IN ('add', 'replace', 'mkdir') GROUP BY mount
"""  # what is replaced is kept until the commit, and so frees nothing; 64: an entry of a folder


def check_space(plan: sqlite3.Connection, limits: Limits) -> None:
    """Save what each file system needs and has; too little of it is a problem."""
    for mount, needed_bytes, needed_inodes in plan.execute(_NEEDS).fetchall():
        status = os.statvfs(mount)
        free_bytes = status.f_bavail * status.f_frsize
        # btrfs makes inodes as it needs them, and counts none
        free_inodes = status.f_favail if status.f_files else 2**63 - 1
        plan.execute(
            "INSERT INTO space VALUES (?, ?, ?, ?, ?)",
            (mount, needed_bytes, free_bytes, needed_inodes, free_inodes),
        )
        for needed, left, free, what in (
            (needed_bytes, limits.free_bytes, free_bytes, "bytes"),
            (needed_inodes, limits.free_inodes, free_inodes, "inodes"),
        ):
            if needed and needed + left > free:
                text = (
                    f"{mount}: {needed} {what} are needed, and {left} are to stay free, but only"
                    f" {free} are free; remove some files there"
                )
                planfile.add_finding(plan, "problem", text, path=mount)
