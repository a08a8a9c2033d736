"""Files of a release that the host has as the very same file, told by their inode numbers.

Unpacking links a file of the release before only where mode, owner, size and time are those of the
index. As long as that was just now, a file on the host that is the release's own needs no look:
to read both folders takes a third of the time of a look at every file in one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

from agent.files import walk
from agent.files.parts import Part

LIMIT = 5000  # entries of one folder, and files that are others: all names are held in memory
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkedLook:
    """Looks for the files that the host has otherwise, or not at all.

    seen:    the host's folders, as they were before the look into each.
    changed: where these files are, or would be.
    """

    def __init__(self, tree: Path, is_over: Callable[[], bool]) -> None:
        """tree: of the release. is_over: whether to stop."""
        self.seen: dict[str, walk.Looked] = {}
        self.changed: list[str] = []
        self._tree = tree
        self._without: set[str] = set()  # of the part that is looked at
        self._is_over = is_over

    def look(self, parts: Iterable[Part]) -> bool:
        """Look at all that they bring; whether it came to its end. Raises OSError."""
        try:
            for part in parts:
                if part.is_folder:
                    self._look_at(part)
                else:
                    self.changed.append(part.place)
        except _StoppedError:
            return False
        return True

    def _look_at(self, part: Part) -> None:
        self._without = {str(self._tree / source) for source in part.without}
        source = str(self._tree / part.source)
        with _opened(source) as release, closing(walk.Folders()) as folders:
            above = None
            with suppress(FileNotFoundError, NotADirectoryError):
                above = folders.open(part.real)
            with _opened_if_there(".", above) as host:
                self._compare(release, host, source, part.real.rstrip("/"))

    def _compare(self, release: int, host: int | None, source: str, target: str) -> None:
        """Compare two folders, and those below them."""
        self.seen[target or "/"] = walk.look_at(target or "/")
        here = {} if host is None else _inodes(host, os.fstat(release).st_dev)
        below = []
        with os.scandir(release) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif here.get(entry.name) != entry.inode():
                    self.changed.append(f"{target}/{entry.name}")
        if len(self.changed) > LIMIT or self._is_over():
            raise _StoppedError
        for name in below:
            inner = f"{source}/{name}"
            if inner not in self._without:
                with _opened(name, release) as folder, _opened_if_there(name, host) as there:
                    self._compare(folder, there, inner, f"{target}/{name}")


class _StoppedError(Exception):
    pass


@contextmanager
def _opened(name: str, above: int | None = None) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=above)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _opened_if_there(name: str, above: int | None) -> Iterator[int | None]:
    """None where it is not there, or is no folder; or `above` is None."""
    with ExitStack() as stack:
        folder = None
        if above is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                folder = stack.enter_context(_opened(name, above))
        yield folder


def _inodes(folder: int, device: int) -> dict[str, int]:
    """Inode numbers of all that is in a folder, by name; none where they do not tell.

    On another device they say nothing. Some file systems in user space give other numbers when a
    folder is read than they give of a file: one look shows that.
    """
    if os.fstat(folder).st_dev != device:
        return {}
    with os.scandir(folder) as entries:
        found = {entry.name: entry.inode() for entry in islice(entries, LIMIT + 1)}
    if len(found) > LIMIT:
        raise _StoppedError
    for name, inode in islice(found.items(), 1):
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino != inode:
            return {}
    return found
