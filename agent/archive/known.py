"""Files of a tgz that the old release's had, byte for byte, taken over without reading headers.

The index tells in which order the old archive had its files, how many bytes each took, and their
digest, headers and all but for the time. Where the next bytes of the stream have it, they are that
entry again: it passed the rules then, and is written down by one statement for a whole stretch of
them. Its time stays the old one: a build stamps all files anew.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from agent.archive import tar_reader
from agent.archive.draft import Draft
from agent.archive.maker import Wish
from agent.archive.roll import Roll
from agent.archive.tar_reader import BLOCK, PieceStream

_LONGEST_PAUSE = 32


class Stretch(NamedTuple):
    """Files as the maker is asked to link them, and their content, in case it cannot."""

    wishes: list[Wish]
    contents: list[bytes]


class Known:
    """Compares a stream with what the old release's archive had at the same place."""

    def __init__(self, draft: Draft, roll: Roll, stream: PieceStream) -> None:
        self._draft = draft
        self._roll = roll
        self._stream = stream
        self._rows = draft.expected_after(-1)
        self._next = next(self._rows, None)
        self._has_any = self._next is not None
        self._first = self._last = self._shift = 0  # the stretch that goes on
        self._misses = self._pause = 0

    def take(self, found: Stretch, room: int) -> int:
        """Add the files that follow, of about `room` bytes at most; the bytes that they take.

        The stream stands behind them then.
        """
        if self._next is None or self._pause:
            self._pause = max(0, self._pause - 1)
            return 0
        count, taken = len(found.wishes), 0
        while taken < room and (step := self._step(found, room - taken)):
            taken += step
        if taken:
            self._roll.admit_known(found.wishes[count:])
            self._misses = 0
        else:  # entries that stand in another order are not looked for at every place
            self._pause, self._misses = self._misses, min(2 * self._misses + 1, _LONGEST_PAUSE)
        return taken

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
            if start + begin - pos != self._shift or not self._last:
                self.end_stretch()
                self._first, self._shift = pos, start + begin - pos
            self._last = pos
            folder, _, name = path.rpartition("/")
            found.wishes.append((folder, name, mode, size, mtime_ns, None))
            found.contents.append(content)
            at = end
            row = next(self._rows, None)
        self._next = row
        self._stream.skip(at - first)
        return at - first

    def end_stretch(self) -> None:
        """Write down the stretch that goes on, if there is one."""
        if self._last:
            self._draft.note_known(self._first, self._last, self._shift)
        self._last = 0

    def pass_by(self, path: str) -> None:
        """An entry was read by its headers: what was behind it then is expected now."""
        if not self._has_any:
            return
        row = self._next
        if row is None or row[0] != path:
            pos = self._draft.old_pos(path)
            if pos is None:
                return
            self._rows = self._draft.expected_after(pos)
        self.end_stretch()
        self._next = next(self._rows, None)
