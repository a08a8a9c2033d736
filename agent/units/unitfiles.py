"""Which files of a plan are unit files: systemd.unit(5), "Unit File Load Path"."""

from __future__ import annotations

import os
import posixpath
import sqlite3
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.files import planfile
from agent.files.choose import Action

# where the units of the system lie; the first one that has a unit wins
FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("service", "socket", "timer", "path", "target", "mount", "automount", "slice", "swap"),
    )
)
_WANTING = (".wants", ".requires", ".upholds")
_CHANGING = (Action.ADD, Action.REPLACE, Action.REMOVE)
_ABSENT = (Action.REMOVE, Action.RETAIN, Action.CONFLICT)
_GONE = 3  # `ours` of a path that this revision has not any more


class Role(StrEnum):
    """What a file in such a folder is: a unit, a drop-in of one, or another (a link in .wants)."""

    UNIT = "unit"
    DROP_IN = "drop-in"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One unit file of a plan.

    unit:   the unit that it describes or extends, "" for Role.OTHER.
    source: where it lies in the release, "" for one that this revision has not any more.
    is_wanted:  it is there after the install, as this revision has it.
    is_changed: the install changes what systemd reads there.
    """

    path: str
    role: Role
    unit: str
    source: str
    is_wanted: bool
    is_changed: bool


@dataclass(frozen=True, slots=True)
class Program:
    """What will be at the path of a program. is_wanted: this revision installs it."""

    is_wanted: bool = False
    is_executable: bool = False


def classify(path: str) -> tuple[Role, str] | None:
    """The role of an absolute path, and the unit it is about; None: it is no unit file."""
    folder = next((each for each in FOLDERS if path.startswith(f"{each}/")), None)
    if folder is None:
        return None
    head, _, name = path[len(folder) + 1 :].rpartition("/")
    if not head and posixpath.splitext(name)[1] in _SUFFIXES:
        return Role.UNIT, name
    if head.endswith(".d") and "/" not in head and name.endswith(".conf"):
        return Role.DROP_IN, head.removesuffix(".d")
    return Role.OTHER, ""


def template_of(unit: str) -> str:
    """The unit file of an instance: app@.service for app@1.service; else the unit itself."""
    name, suffix = posixpath.splitext(unit)
    prefix, at, _ = name.partition("@")
    return f"{prefix}@{suffix}" if at else unit


def find_unit_files(plan_path: Path) -> list[UnitFile]:
    """Every unit file that a plan is about; none without a plan. Blocks; raises AgentError."""
    if not plan_path.exists():
        return []
    found = []
    with planfile.opened(plan_path) as plan:
        for folder in FOLDERS:
            rows = plan.execute(
                "SELECT path, action, kind, source, was, ours FROM planned"
                " WHERE path > ? AND path < ? AND kind <> 'dir' ORDER BY path",
                planfile.below(folder),
            )
            found += [_unit_file(*row) for row in rows]
    return found


def _unit_file(
    path: str, action: str, kind: str, source: str | None, was: str | None, ours: int
) -> UnitFile:
    role, unit = classify(path) or (Role.OTHER, "")
    if kind == "link":
        role, unit = Role.OTHER, ""  # an alias, or what `systemctl enable` would make
    is_gone = ours == _GONE
    return UnitFile(
        path=path,
        role=role,
        unit=unit,
        source="" if is_gone else source or "",
        is_wanted=not is_gone and action not in _ABSENT,
        is_changed=action in _CHANGING and not (is_gone and was is None),
    )


def find_program(plan: sqlite3.Connection, path: str) -> Program:
    """What a plan puts at the path of a program; links on the way to it are followed."""
    folder, name = os.path.split(path)
    row = plan.execute(
        "SELECT action, kind, mode, ours FROM planned WHERE path = ?",
        (os.path.join(os.path.realpath(folder), name),),
    ).fetchone()
    if row is None:
        return Program()
    action, kind, mode, ours = row
    is_wanted = ours != _GONE and action not in _ABSENT and kind != "dir"
    return Program(is_wanted, kind == "link" or bool((mode or 0) & stat.S_IXUSR))


def find_on_host(unit: str) -> str:
    """The path of a unit's file on this host, "" where there is none; blocks."""
    for name in dict.fromkeys((unit, template_of(unit))):
        for folder in FOLDERS:
            path = f"{folder}/{name}"
            if os.path.lexists(path):
                return path
    return ""


def find_links(unit: str) -> tuple[str, ...]:
    """What `systemctl enable` has made for a unit, by path: wants and aliases; blocks.

    Also where the unit itself is gone.
    """
    found = []
    for folder in map(Path, FOLDERS[:2]):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix in _WANTING and path.is_dir():
                if (path / unit).is_symlink():
                    found.append(path / unit)
            elif path.is_symlink() and path.name != unit and path.readlink().name == unit:
                found.append(path)
    return tuple(sorted(map(str, found)))


def look_at(paths: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
    """What tells by each path whether the file there is another one; blocks."""
    found: dict[str, tuple[int, ...] | None] = {}
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:
            found[path] = None
        else:
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
