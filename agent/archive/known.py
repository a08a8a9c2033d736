"""Files that the old release's archive had as well, taken over without reading their headers.

The index tells in which order the old archive had its files, and what each looked like there, but
for what every build makes anew. Where the new archive goes on with the same, it is that entry
again: it passed the rules then, and is written down by one statement for a whole stretch of them.
Its time stays the old one: a build stamps all files anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from agent.archive import zip_record
from agent.archive.draft import Draft, Expected
from agent.archive.maker import Wish
from agent.archive.member import EntryKind, Member
from agent.archive.roll import Roll


class Stretch(NamedTuple):
    """Files as the maker is asked to link them, and their packed content, in case it cannot.

    records: of a zip, what without_times() gave of them; else none.
    """

    wishes: list[Wish]
    contents: list[bytes]
    records: list[bytes]

    def member(self, number: int) -> Member:
        """A file of it, as far as unpacking its content needs it."""
        folder, name, mode, size, mtime_ns, _ = self.wishes[number]
        path = f"{folder}/{name}"
        if self.records:
            return zip_record.to_member(self.records[number], 0, path, size, 0)
        return Member(0, path, EntryKind.FILE, mode, size, mtime_ns)


def no_stretch() -> Stretch:
    """One without files."""
    return Stretch([], [], [])


class Known(ABC):
    """Compares an archive with what the old release's had at the same place.

    longest_pause: entries that stand in another order are not looked for at every place.
    """

    longest_pause = 0

    def __init__(self, draft: Draft, roll: Roll, *, is_zip: bool) -> None:
        self._draft = draft
        self._roll = roll
        self._has_any = draft.has_expected(is_zip=is_zip)
        self._rows = draft.expected_after(-1)
        self._next: Expected | None = next(self._rows, None) if self._has_any else None
        self._first = self._last = -1  # the stretch that goes on
        self._shift = self._record = 0
        self._misses = self._pause = 0

    def take(self, found: Stretch, room: int) -> int:
        """Add the files that follow, of about `room` bytes at most; the bytes that they take."""
        if self._next is None or self._pause:
            self._pause = max(0, self._pause - 1)
            return 0
        count, taken = len(found.wishes), 0
        while taken < room and (step := self._step(found, room - taken)):
            taken += step
        if taken:
            self._roll.admit_known(found.wishes[count:])
            self._misses = 0
        else:
            self._pause = self._misses
            self._misses = min(2 * self._misses + 1, self.longest_pause)
        return taken

    @abstractmethod
    def _step(self, found: Stretch, room: int) -> int:
        """Add files as far as they can be seen at once; as take()."""

    def _extend(self, pos: int, shift: int, record: int = 0) -> None:
        """Have the old entry at `pos` in the stretch that goes on, or begin one with it."""
        if shift != self._shift or self._last < 0:
            self.end_stretch()
            self._first, self._shift, self._record = pos, shift, record
        self._last = pos

    def end_stretch(self) -> None:
        """Write down the stretch that goes on, if there is one."""
        if self._last >= 0:
            self._draft.note_known(self._first, self._last, self._shift, self._record)
        self._last = -1

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
