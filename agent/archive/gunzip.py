"""Inflating a gzip file as a stream, within the limits.

Source: RFC 1952. Several members one behind the other are one stream (pigz, cat); zeros behind
the last one are padding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.archive import inflate
from agent.archive.refusals import damaged, refused_bundle
from agent.model.settings import Limits
from agent.system.cancel import Cancel

RATIO_FROM_BYTES = 64 * 2**20  # below this much a bomb does no harm, and small files pack well
_READ_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024


class Gunzip:
    """The content of the gzip file that `fd` is open on. consumed: bytes read of it so far."""

    def __init__(self, fd: int, limits: Limits, cancel: Cancel) -> None:
        self._fd = fd
        self._limits = limits
        self._cancel = cancel
        self.size = os.fstat(fd).st_size
        self.consumed = 0
        self._inflated = 0

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces of at most 256 KiB; the checksums are checked at the end.

        Raises AgentError: BUNDLE_DAMAGED where it is cut off or does not inflate,
        BUNDLE_REFUSED where it grows beyond the ratio.
        """
        inflater: inflate.Inflater | None = None
        waiting = b""
        while True:
            if not waiting:
                waiting = os.pread(self._fd, _READ_BYTES, self.consumed)
                self.consumed += len(waiting)
                self._cancel.check()
            if inflater is None or inflater.eof:
                waiting = waiting if inflater is None else waiting.lstrip(b"\0")
                if waiting:
                    inflater = inflate.gzip_member(waiting)
                elif self.consumed >= self.size:
                    return
                else:
                    continue
            elif not waiting:
                raise damaged("the gzip file is cut off: is it still being copied?")
            try:
                piece = inflate.decompress(inflater, waiting, _PIECE_BYTES)
            except inflate.CannotInflate as error:
                raise damaged(f"it cannot be inflated ({error})") from error
            waiting = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            self._count(len(piece))
            if piece:
                yield piece

    def _count(self, size: int) -> None:
        self._inflated += size
        if self._inflated > max(RATIO_FROM_BYTES, self.size * self._limits.ratio):
            raise refused_bundle(
                f"it inflates to more than {self._limits.ratio} times its size",
                "Raise limits.ratio in agent.yaml if this bundle is meant to be like that.",
            )
