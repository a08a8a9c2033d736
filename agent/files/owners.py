"""Whose the files are that are in a plan's way: another application's, dpkg's, or unknown."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from agent.files import planfile
from agent.system.process import Captured

Capture = Callable[[Sequence[str]], Captured]
"""Runs a small command: process.capture_blocking, or a test's stand-in for a tool."""

UNKNOWN = "unknown"

_ASKED = 1000  # paths; whose the others are, the first thousand will tell
_BATCH = 200  # paths on one command line
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # into /usr: Debian's usrmerge


def name_owners(plan: sqlite3.Connection, capture: Capture, *, replaced: int) -> None:
    """Save the owner of each conflict; a warning for each file of dpkg that is replaced.

    replaced: how many files that are not ours are.
    """
    conflicts = [
        row[0]
        for row in plan.execute(
            "SELECT path FROM findings WHERE kind = 'conflict' AND owner = '' LIMIT ?", (_ASKED,)
        )
    ]
    lost = [
        row[0]
        for row in plan.execute(
            "SELECT path FROM actions WHERE action = 'replace' AND ours = 0 LIMIT ?",
            (min(replaced, _ASKED),),
        )
    ]
    owners = find_owners(conflicts + lost, capture)
    plan.executemany(
        "UPDATE findings SET owner = ? WHERE kind = 'conflict' AND owner = '' AND path = ?",
        [(owners.get(path, UNKNOWN), path) for path in conflicts],
    )
    for path in lost:
        if path in owners:
            text = f"{path} of {owners[path]} is replaced, until its next upgrade replaces it back"
            planfile.add_finding(plan, "warning", text, path=path, owner=owners[path])


def find_owners(paths: Iterable[str], capture: Capture) -> dict[str, str]:
    """By path, "dpkg NAME" for each path that dpkg knows; none where there is no dpkg."""
    asked = {alias: path for path in paths for alias in _aliases(path)}
    names = iter(asked)
    found: dict[str, str] = {}
    while batch := list(itertools.islice(names, _BATCH)):
        answer = capture(("dpkg", "-S", "--", *(_escape(name) for name in batch)))
        for line in answer.out.splitlines():
            owner, _, path = line.partition(": /")
            if f"/{path}" in asked and not owner.startswith("diversion by"):
                found[asked[f"/{path}"]] = f"dpkg {owner}"
    return found


def _aliases(path: str) -> list[str]:
    """The path, and its name from before /lib became a symlink to /usr/lib: dpkg may have that."""
    top, _, rest = path.removeprefix("/usr/").partition("/")
    if path.startswith("/usr/") and top in _MERGED and os.path.islink(f"/{top}"):
        return [path, f"/{top}/{rest}"]
    return [path]


def _escape(path: str) -> str:
    return "".join(f"\\{c}" if c in "*?[\\" else c for c in path)
