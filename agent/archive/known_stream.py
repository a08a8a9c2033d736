"""Files of a tgz that the old release's had, byte for byte, taken over without reading headers.

Where the next bytes of the stream have the digest that the index has of the old entry, headers and
all but for the time, they are that entry again.
"""

from __future__ import annotations

import hashlib

from agent.archive import tar_reader
from agent.archive.draft import Draft
from agent.archive.known import Known, Stretch
from agent.archive.roll import Roll
from agent.archive.tar_reader import BLOCK, PieceStream


class KnownInStream(Known):
    """Compares a stream with the old release's tgz. The stream stands behind what take() gave."""

    longest_pause = 32

    def __init__(self, draft: Draft, roll: Roll, stream: PieceStream) -> None:
        super().__init__(draft, roll, is_zip=False)
        self._stream = stream

    def _step(self, found: Stretch, room: int) -> int:
        """Add files as long as they lie in the same piece of the stream; as take()."""
        if (row := self._next) is None:
            return 0
        _, _, size, _, _, head, _ = row
        there, first = self._stream.ahead(head + size + -size % BLOCK)
        at, start = first, self._stream.position() - first
        while row is not None and at - first < room:
            path, mode, size, mtime_ns, pos, head, whole = row
            begin = at + head
            end = begin + size + -size % BLOCK
            if end > len(there):
                break
            content = there[begin : begin + size]
            digest = hashlib.sha256(content)
            tar_reader.feed_headers(digest.update, there[at:begin])
            if digest.digest() != whole:
                break
            self._extend(pos, start + begin - pos)
            folder, _, name = path.rpartition("/")
            found.wishes.append((folder, name, mode, size, mtime_ns, None))
            found.contents.append(content)
            at = end
            row = next(self._rows, None)
        self._next = row
        self._stream.skip(at - first)
        return at - first
