"""Making and walking a release's tree by directory descriptors, following no link.

Every name is opened relative to the descriptor of its folder and with O_NOFOLLOW, so that nothing
in an archive or in a tampered tree leads out of it (the flaws behind CVE-2025-4517 and its kin
were all in the resolution of paths).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.archive import names
from agent.archive.maker import FOLDER_MODE

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 64


class Tree:
    """Descriptors of the folders below `root`, opened as they are needed, a few kept open.

    Not for two threads at once; each has its own. Methods raise OSError.
    """

    def __init__(self, root: Path, *, exact: bool = False) -> None:
        """exact: whether modes come out as given to open(), as make_root() found out."""
        self._root = os.open(root, _OPEN_FOLDER)
        self._open: dict[str, int] = {}
        self._last = ("", self._root)
        self._exact = exact

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close every descriptor."""
        self._close_folders()
        os.close(self._root)

    def folder(self, path: str, *, make: bool = False) -> int:
        """A descriptor of the folder at `path` ("" is the root), valid until the next call.

        make: also make it and its parents where they are missing.
        """
        last, fd = self._last
        if path == last:
            return fd
        if len(self._open) > _KEPT_OPEN:
            self._close_folders()
        fd = self._descend(path, make=make)
        self._last = (path, fd)
        return fd

    def create(self, path: str, mode: int) -> int:
        """A descriptor for writing on a new file; its folders are made."""
        folder, _, name = path.rpartition("/")
        fd = os.open(name, _CREATE, mode, dir_fd=self.folder(folder, make=True))
        if not self._exact:
            os.fchmod(fd, mode)
        return fd

    def stat(self, path: str) -> os.stat_result:
        """What is at `path`; a link itself."""
        folder, _, name = path.rpartition("/")
        return os.stat(name, dir_fd=self.folder(folder), follow_symlinks=False)

    def open(self, path: str) -> int:
        """A descriptor for reading on what is at `path`; a link is an error."""
        folder, _, name = path.rpartition("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=self.folder(folder))

    def read_link(self, path: str) -> str:
        """Where the link at `path` points to."""
        folder, _, name = path.rpartition("/")
        return os.readlink(name, dir_fd=self.folder(folder))

    def symlink(self, path: str, target: str) -> None:
        """Make a link; its folders are made."""
        folder, _, name = path.rpartition("/")
        os.symlink(target, name, dir_fd=self.folder(folder, make=True))

    def rename(self, old: str, new: str) -> None:
        """Give what is at `old` the name `new`, over whatever is there."""
        old_folder, _, old_name = old.rpartition("/")
        folder, _, name = new.rpartition("/")
        source = os.dup(self.folder(old_folder))
        try:
            os.rename(old_name, name, src_dir_fd=source, dst_dir_fd=self.folder(folder))
        finally:
            os.close(source)

    def unlink(self, path: str) -> None:
        """Remove the file or link at `path`."""
        folder, _, name = path.rpartition("/")
        os.unlink(name, dir_fd=self.folder(folder))

    def _descend(self, path: str, *, make: bool) -> int:
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            return fd
        above = self._descend(names.parent(path), make=make)
        name = path.rpartition("/")[2]
        try:
            fd = os.open(name, _OPEN_FOLDER, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise
            fd = self._make(name, above)
        self._open[path] = fd
        return fd

    def _make(self, name: str, above: int) -> int:
        with contextlib.suppress(FileExistsError):  # another thread was first, or it is a file
            os.mkdir(name, FOLDER_MODE, dir_fd=above)
        fd = os.open(name, _OPEN_FOLDER, dir_fd=above)
        if not self._exact:
            os.fchmod(fd, FOLDER_MODE)
        return fd

    def _close_folders(self) -> None:
        self._last = ("", self._root)
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def make_root(path: Path) -> bool:
    """Make the new, empty folder of a tree; its parent exists. Raises OSError.

    Gives back whether its mode came out as asked for: neither the umask nor a default ACL of the
    parent takes bits away, and none are inherited (setgid).
    """
    os.mkdir(path, FOLDER_MODE)
    exact = stat.S_IMODE(os.lstat(path).st_mode) == FOLDER_MODE
    if not exact:
        os.chmod(path, FOLDER_MODE)
    return exact


def write_all(fd: int, piece: bytes) -> None:
    """Write all of `piece`. Raises OSError."""
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, memoryview(piece)[written:])
