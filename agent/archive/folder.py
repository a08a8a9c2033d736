"""Packing a folder into a tar, so that a folder as a bundle goes the way of all bundles."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.archive import names
from agent.archive.fetch_copy import Copied, changed, identity, new_file
from agent.archive.refusals import refused
from agent.archive.roll import over_limit
from agent.archive.tree import write_all
from agent.model.errors import Code, from_os_error
from agent.model.settings import Limits
from agent.system.cancel import Cancel

_PIECE_BYTES = 256 * 1024
_BLOCK = 512
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# typeflag of a ustar header: pax(1)
_FILE, _LINK, _FOLDER = b"0", b"2", b"5"
_TYPES = {stat.S_IFREG: _FILE, stat.S_IFDIR: _FOLDER, stat.S_IFLNK: _LINK}


def pack_folder(
    folder: Path,
    out: Path,
    *,
    limits: Limits,
    cancel: Cancel,
    progress: Callable[[int, int], None],
) -> Copied:
    """Pack `folder` into the new tar `out` (mode 0600); the same content gives the same bytes.

    Names are sorted, owners are 0, modes and the files' mtimes (whole seconds) are kept. Links are
    packed as links. progress: bytes done, and 0 since the total is unknown. Raises AgentError:
    BUNDLE_MISSING, BUNDLE_REFUSED (a fifo, a device, a bad name, too big), DISK_FULL;
    TransientError (BUNDLE_CHANGED) if something changes meanwhile; Interrupted. `out` is removed
    then. The caller syncs.
    """
    try:
        top = os.open(folder, _OPEN_FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        raise from_os_error(error, f"read the bundle {folder}", code=Code.BUNDLE_MISSING) from error
    try:
        with new_file(out) as fd:
            packing = _Packing(folder, fd, limits, cancel, progress)
            packing.add_folder(top, "")
            return packing.end()
    except FileNotFoundError as error:
        raise changed(folder) from error
    except OSError as error:
        raise from_os_error(error, f"pack the folder {folder}", code=Code.BUNDLE_REFUSED) from error
    finally:
        os.close(top)


class _Packing:
    """One tar while it is written."""

    def __init__(
        self,
        root: Path,
        out: int,
        limits: Limits,
        cancel: Cancel,
        progress: Callable[[int, int], None],
    ) -> None:
        self._root = root
        self._out = out
        self._limits = limits
        self._cancel = cancel
        self._progress = progress
        self._digest = hashlib.sha256()
        self._waiting = bytearray()
        self._size = 0
        self._entries = 0

    def add_folder(self, folder: int, path: str) -> None:
        """Add what is in a folder, sorted by name, folders with what is below them."""
        before = identity(os.fstat(folder))
        for name in sorted(os.listdir(folder)):
            self._cancel.check()
            self._add(folder, name, f"{path}/{name}" if path else name)
        if identity(os.fstat(folder)) != before:
            raise changed(self._root)

    def end(self) -> Copied:
        """Write the end mark; digest and size of the tar."""
        self._write(bytes(2 * _BLOCK))
        self._flush()
        return Copied(self._digest.hexdigest(), self._size)

    def _add(self, folder: int, name: str, path: str) -> None:
        self._check_name(path)
        import tarfile  # imported here: most agents never see a folder as a bundle

        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        header = tarfile.TarInfo(path)
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            raise refused(path, "is a device, fifo or socket", "Remove it from the folder.")
        header.type = kind
        header.mode = stat.S_IMODE(found.st_mode)
        if kind == _LINK:
            header.linkname = os.readlink(name, dir_fd=folder)
        elif kind == _FILE:
            header.size, header.mtime = found.st_size, int(found.st_mtime)
        self._write(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        if kind == _LINK:
            return
        fd = os.open(name, _OPEN_FOLDER if kind == _FOLDER else _OPEN_FILE, dir_fd=folder)
        try:
            if kind == _FOLDER:
                self.add_folder(fd, path)
            else:
                self._add_content(fd, identity(found))
        finally:
            os.close(fd)

    def _add_content(self, fd: int, before: tuple[int, ...]) -> None:
        """Add a file's content; it must be the file of that identity, before and after."""
        size = 0
        while piece := os.read(fd, _PIECE_BYTES):
            size += len(piece)
            self._write(piece)
            self._cancel.check()
        if identity(os.fstat(fd)) != before or size != before[2]:
            raise changed(self._root)
        self._write(bytes(-size % _BLOCK))

    def _check_name(self, path: str) -> None:
        self._entries += 1
        if self._entries > self._limits.members:
            raise over_limit(f"more than {self._limits.members} entries", "members")
        if path.count("/") >= self._limits.depth:
            raise refused(path, f"lies deeper than {self._limits.depth} folders")
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise refused(os.fsencode(path), "is not a UTF-8 name", "Rename it.") from error
        names.clean(path)

    def _write(self, piece: bytes) -> None:
        self._waiting += piece
        self._size += len(piece)
        if self._size > self._limits.bundle_bytes:
            raise over_limit(f"more than {self._limits.bundle_bytes} bytes", "bundle")
        if len(self._waiting) >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        content = bytes(self._waiting)
        self._waiting.clear()
        self._digest.update(content)
        write_all(self._out, content)
        self._progress(self._size, 0)
