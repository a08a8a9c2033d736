"""The control groups of this host: where a path of the hierarchy lies, and who is in it.

Hosts differ: cgroup2 alone at /sys/fs/cgroup, cgroup2 beside the old controllers (hybrid), or the
old ones alone, where systemd keeps a hierarchy of its own. See cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def own_folder() -> Path | None:
    """The folder of this process in the cgroup2 hierarchy, where that is mounted."""
    for point, root in _mounts("cgroup2", ""):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                return _below(point, root, path) or Path(point)
    return None


def unit_folder(path: str) -> Path | None:
    """The folder of a unit's control group (its property ControlGroup), None where it has none."""
    if not path:
        return None
    for kind, option in (("cgroup2", ""), ("cgroup", "name=systemd")):
        for point, root in _mounts(kind, option):
            folder = _below(point, root, path)
            if folder is not None and folder.is_dir():
                return folder
    return None


def read_pids(folder: Path) -> list[int]:
    """The processes in a group and in those below it; none where it is not there any more."""
    pids: list[int] = []
    for each, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):  # it was removed meanwhile
            pids += map(int, Path(each, "cgroup.procs").read_text("ascii").split())
    return pids


def _below(point: str, root: str, path: str) -> Path | None:
    """Where a path of the hierarchy lies below a mount of its folder `root`."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return Path(point, os.path.relpath(path, root)) if inside else None


def _mounts(kind: str, option: str) -> Iterator[tuple[str, str]]:
    """Where such a hierarchy is mounted, and which of its folders that is."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        words = source.split()
        if words[0] == kind and (not option or option in words[2].split(",")):
            yield fields.split()[4], fields.split()[3]
