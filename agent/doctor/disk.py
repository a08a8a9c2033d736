"""Disks: room and inodes where the agent writes, and what its file system can do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.settings import Limits

_SCARCE_PERCENT = 5
_TARGETS = ("/opt", "/srv", "/usr/local", "/etc")


def look(host: Host) -> Iterator[Finding]:
    """The file systems of the state folder and of /, each once."""
    state = _nearest(host.settings.state_dir)
    seen: set[int] = set()
    for path in (state, Path("/")):
        device = path.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield from _look_at_room(path, host.settings.limits)
    flags = os.statvfs(state).f_flag
    if flags & os.ST_RDONLY:
        yield finding.problem(
            f"the file system of {state} is read-only",
            f"See why: dmesg | tail; then: mount -o remount,rw $(findmnt -no TARGET -T {state})",
        )
    if flags & os.ST_NOEXEC:
        yield finding.problem(
            f"the file system of {state} is mounted noexec: no hook can run from it",
            "Set state_dir in agent.yaml to a folder on another file system, or mount it exec",
        )
    apart = [each for each in _TARGETS if _is_apart(each, state)]
    if apart:
        text = f"{', '.join(apart)} are not on the file system of {state}: files are copied there"
        yield finding.ok(f"{text}, not linked")
    else:
        yield finding.ok(f"files are linked from {state}, which lies with /opt and /srv")


def _look_at_room(path: Path, limits: Limits) -> Iterator[Finding]:
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    total = found.f_blocks * found.f_frsize or 1
    percent = 100 * free // total
    room = f"{_mib(free)} ({percent} %) free on the file system of {path}"
    if free < limits.free_bytes:
        yield finding.problem(
            f"{room}: less than limits.free, {_mib(limits.free_bytes)}, so no deployment begins",
            f"See what takes it: du -xh --max-depth=2 {path} | sort -h | tail",
        )
    elif percent < _SCARCE_PERCENT:
        yield finding.warning(room, f"See what takes it: du -xh --max-depth=2 {path} | sort -h")
    else:
        yield finding.ok(room)
    inodes = f"{found.f_favail} inodes free on the file system of {path}"
    if found.f_files and found.f_favail < limits.free_inodes:
        yield finding.problem(
            f"{inodes}: less than limits.free_inodes, {limits.free_inodes}",
            f"See where they are: du -x --inodes --max-depth=2 {path} | sort -n | tail",
        )
    elif found.f_files and 100 * found.f_favail // found.f_files < _SCARCE_PERCENT:
        remedy = f"See where they are: du -x --inodes --max-depth=2 {path} | sort -n | tail"
        yield finding.warning(inodes, remedy)


def _nearest(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _is_apart(folder: str, state: Path) -> bool:
    try:
        return os.stat(folder).st_dev != state.stat().st_dev
    except FileNotFoundError:
        return False


def _mib(size: int) -> str:
    return f"{size // 2**20} MiB"
