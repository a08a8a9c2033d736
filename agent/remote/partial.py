"""A file that is downloaded: hashed while it is written, and found again after a restart."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from agent.model.errors import AgentError, Code, from_os_error
from agent.system.cancel import Cancel

_BLOCK_BYTES = 2**20
# where what is in the file came from; gone with the file, and no second file beside it
_ORIGIN = "user.deploy-agent.origin"


class PartialFile:
    """Blocks, all of it: for a thread. Raises AgentError.

    origin: which bytes of which object these are the first of; "" where they are of no use.
    """

    def __init__(self, path: Path, cancel: Cancel) -> None:
        self.path = path
        self.size = 0
        self.origin = ""
        self._cancel = cancel
        self._hash = hashlib.sha256()
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def take_up(self) -> None:
        """Hash what an earlier download left here, to go on with it; without an origin, drop it."""
        try:
            origin = _read_origin(self._file.fileno())
            if not origin:
                self._file.truncate(0)
                return
            self._file.seek(0)
            while block := self._file.read(_BLOCK_BYTES):
                self._cancel.check()
                self._hash.update(block)
                self.size += len(block)
            self.origin = origin
        except OSError as error:
            raise self._failed(error) from error

    def start_anew(self, origin: str) -> None:
        """Drop what is there; what comes now is of `origin`."""
        try:
            self._file.truncate(0)
            _write_origin(self._file.fileno(), origin)
        except OSError as error:
            raise self._failed(error) from error
        self._hash = hashlib.sha256()
        self.size = 0
        self.origin = origin

    def append(self, pieces: Iterable[bytes]) -> None:
        """Write these and hash them."""
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:  # a full disk takes a part, and then raises
                    written = self._file.write(view)
                    self._hash.update(view[:written])
                    self.size += written
                    view = view[written:]
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> str:
        """Its SHA-256: it is complete, and no longer remembers an origin."""
        _write_origin(self._file.fileno(), "")
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it; what is there remains."""
        self._file.close()

    def _failed(self, error: OSError) -> AgentError:
        return from_os_error(error, f"write {self.path}", code=Code.BUNDLE_MISSING)


def _read_origin(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return os.getxattr(descriptor, _ORIGIN).decode()
    return ""


def _write_origin(descriptor: int, origin: str) -> None:
    """Remember it, or forget it; a file system without xattrs only costs a later fresh start."""
    with contextlib.suppress(OSError):
        if origin:
            os.setxattr(descriptor, _ORIGIN, origin.encode())
        else:
            os.removexattr(descriptor, _ORIGIN)
