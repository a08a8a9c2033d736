"""Ways through folders: by descriptors that follow no link, and in the order of a plan's paths."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator

from agent.files import planfile

_SETTLED_NS = 100_000_000  # a change time is as coarse as the kernel's clock tick, at most 10 ms
_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """Opens folders below a root without following any link; keeps the way to the last one open.

    A symlink that somebody puts on the way after the plan was made is refused (ENOTDIR), so that
    nothing is ever written where the plan did not say.
    """

    def __init__(self, root: str = "/") -> None:
        self._names: list[str] = []
        self._descriptors = [os.open(root, _FLAGS & ~os.O_NOFOLLOW)]
        self._path = ""

    def open(self, path: str) -> int:
        """The descriptor of a folder, valid until the next call. Raises OSError."""
        if path == self._path:
            return self._descriptors[-1]
        names = [name for name in path.split("/") if name]
        kept = 0
        for ours, theirs in zip(self._names, names, strict=False):
            if ours != theirs:
                break
            kept += 1
        self._path = "\0"  # not a path: a failure on the way leaves none
        while len(self._names) > kept:
            self._names.pop()
            os.close(self._descriptors.pop())
        for name in names[kept:]:
            self._descriptors.append(os.open(name, _FLAGS, dir_fd=self._descriptors[-1]))
            self._names.append(name)
        self._path = path
        return self._descriptors[-1]

    def ensure(self, path: str) -> int:
        """The same; the folder and those above it are made where they are missing."""
        try:
            return self.open(path)
        except FileNotFoundError:
            folder, name = split(path)
            parent = self.ensure(folder)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
            return self.open(path)

    def close(self) -> None:
        """Close all."""
        while self._descriptors:
            os.close(self._descriptors.pop())


Looked = tuple[int, int | None, int | None, int | None]
"""When entries of a folder changed last (see planfile), its mode, uid and gid."""


def look_at(folder: str) -> Looked:
    """What a second look is compared with. Raises OSError."""
    try:
        status = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return -1, None, None, None
    if not stat.S_ISDIR(status.st_mode):
        return -1, None, None, None
    is_settled = status.st_ctime_ns < time.time_ns() - _SETTLED_NS
    changed_ns = status.st_ctime_ns if is_settled else 0
    return changed_ns, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def split(path: str) -> tuple[str, str]:
    """Folder and name of an absolute path."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def walk_in_order(folder: str) -> Iterator[str]:
    """Every path below a folder, in the order in which SQLite sorts them; follows no link."""
    keys = []
    with os.scandir(folder) as entries:
        for entry in entries:
            keys.append(entry.name)
            if entry.is_dir(follow_symlinks=False):
                keys.append(f"{entry.name}/")  # sorts where its content does: "a", "a.txt", "a/b"
    keys.sort()
    for key in keys:
        if key[-1] == "/":
            yield from walk_in_order(f"{folder}/{key[:-1]}")
        else:
            yield f"{folder}/{key}"


def find_stranger(
    plan: sqlite3.Connection, folder: str, *, where: str, ignore: str = ""
) -> str | None:
    """The first path below a folder that no action `where` names; ignore: a name that may be."""
    query = f"SELECT path FROM actions WHERE path >= ? AND path < ? AND {where} ORDER BY path"  # noqa: S608
    known = (row[0] for row in plan.execute(query, planfile.below(folder)))
    here = next(known, None)
    for path in walk_in_order(folder):
        while here is not None and here < path:
            here = next(known, None)
        if here != path and split(path)[1] != ignore:
            return path
    return None
