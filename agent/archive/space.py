"""Free space: enough for what will be written, and the limits' margin beside it."""

from __future__ import annotations

import os
from pathlib import Path

from agent.archive.refusals import disk_full
from agent.model.settings import Limits


class Space:
    """Keeps the limits' margin free on the file system of `path`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits

    def check(self, size: int = 0, files: int = 0) -> None:
        """Raise TransientError (DISK_FULL) unless `size` bytes in `files` more files fit."""
        found = os.statvfs(self._path)
        there = found.f_bavail * found.f_frsize
        if there < size + self._limits.free_bytes:
            raise disk_full(
                f"{_mib(size)} and {_mib(self._limits.free_bytes)} to stay free are",
                _mib(there),
                f"the file system of {self._path.parent} is too full",
            )
        if found.f_files and found.f_favail < files + self._limits.free_inodes:
            raise disk_full(
                f"{files} inodes and {self._limits.free_inodes} to stay free are",
                str(found.f_favail),
                f"the file system of {self._path.parent} has too few inodes",
            )

    def block(self) -> int:
        """Bytes that the smallest file takes."""
        return os.statvfs(self._path).f_frsize


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"
