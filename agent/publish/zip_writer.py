"""Writes a folder's contents as a zip whose bytes depend on nothing but them.

Source: reproducible-builds.org on archives. All times are the same, modes are 0755 or 0644, owners
are not in it; zlib at its default level, 6. Another version of zlib may pack into other bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.archive import fetch_copy
from agent.model.errors import Code, TransientError
from agent.publish.contents import Entry

_EARLIEST = 315532800  # 1980-01-01, where DOS times begin
_LATEST = 4354819198  # 2107-12-31, where they end
_UNIX = 3
_PIECE_BYTES = 2**20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Look = Callable[[str, bytes], None]


@contextlib.contextmanager
def writing(path: Path, *, seconds: int, look: Look) -> Iterator[ZipWriter]:
    """A new zip at `path`, complete and on the disk when the block ends. Raises OSError.

    seconds: Unix time of all entries. look: is given the path and every piece of every file that is
    packed, at least one. Of a bundle only the list of its entries is kept in memory; beyond 4 GiB
    it is a ZIP64.
    """
    with path.open("xb+") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            yield ZipWriter(archive, seconds=seconds, look=look)
        file.flush()
        os.fsync(file.fileno())


class ZipWriter:
    """The entries of a zip while it is written. files, bytes: what was added until now."""

    def __init__(self, archive: zipfile.ZipFile, *, seconds: int, look: Look) -> None:
        self._zip = archive
        self._time = time.gmtime(min(max(seconds, _EARLIEST), _LATEST))[:6]
        self._look = look
        self.files = 0
        self.bytes = 0

    def add(self, folder: Path, entry: Entry) -> None:
        """Add what lies in `folder`. Raises OSError; TransientError if it changes meanwhile."""
        mode = entry.found.st_mode
        if stat.S_ISDIR(mode):
            self._zip.writestr(self._info(f"{entry.path}/", stat.S_IFDIR | 0o755), b"")
        elif stat.S_ISLNK(mode):
            self._zip.writestr(self._info(entry.path, stat.S_IFLNK | 0o777), entry.target)
        else:
            self._add_file(folder / entry.path, entry)

    def add_text(self, path: str, text: bytes) -> None:
        """Add a file of ours."""
        info = self._info(path, stat.S_IFREG | 0o644)
        info.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(info, text)

    def _add_file(self, path: Path, entry: Entry) -> None:
        executable = entry.found.st_mode & stat.S_IXUSR
        info = self._info(entry.path, stat.S_IFREG | (0o755 if executable else 0o644))
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size = size = entry.found.st_size  # decides whether it needs ZIP64
        before = fetch_copy.identity(entry.found)
        with os.fdopen(os.open(path, _OPEN), "rb", buffering=0) as source:
            left = size
            with self._zip.open(info, "w") as packed:
                self._look(entry.path, b"")
                while left >= 0 and (piece := source.read(min(_PIECE_BYTES, left + 1))):
                    left -= len(piece)
                    self._look(entry.path, piece)
                    packed.write(piece[: len(piece) + min(left, 0)])
            if left or fetch_copy.identity(os.fstat(source.fileno())) != before:
                raise _changed(path)
        self.files += 1
        self.bytes += size

    def _info(self, name: str, mode: int) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self._time)
        info.create_system = _UNIX  # so that the mode counts
        info.external_attr = mode << 16
        return info


def _changed(path: Path) -> TransientError:
    return TransientError(
        f"cannot bundle {path}: it changed while it was read",
        code=Code.BUNDLE_CHANGED,
        remedy="Wait until the build is over, then try again",
    )


def read_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
