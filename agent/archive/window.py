"""Reading small pieces of a file in about their order, by few system calls."""

from __future__ import annotations

import os

_WINDOW_BYTES = 256 * 1024


class Window:
    """A part of a file held in memory.

    pread on a descriptor and not mmap: mapped pages would count as the agent's memory.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._bytes = b""

    def read(self, pos: int, count: int) -> bytes:
        """`count` bytes from `pos` on; fewer only where the file ends."""
        at = pos - self._start
        if at < 0 or at + count > len(self._bytes):
            self._bytes = os.pread(self._fd, max(count, _WINDOW_BYTES), pos)
            self._start, at = pos, 0
        return self._bytes[at : at + count]
