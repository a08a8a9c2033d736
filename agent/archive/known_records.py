"""Files of a zip that the old release's had, by the same record in the central directory.

First the records are compared, then, when all entries are judged, what lies at their places: the
packed bytes must have the digest of the old ones, else the file is read like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from agent.archive import zip_record
from agent.archive.draft import Draft
from agent.archive.known import Known, Stretch, no_stretch
from agent.archive.member import Member
from agent.archive.roll import Roll
from agent.archive.zip_content import LOCAL_BYTES, ZipContent
from agent.archive.zip_directory import Records
from agent.system.cancel import Cancel

_ROOM = 64 * 1024  # bytes of records that are looked at before cancel is


class KnownRecords(Known):
    """Compares a zip's directory with that of the old release's zip."""

    def __init__(self, draft: Draft, roll: Roll, records: Records) -> None:
        super().__init__(draft, roll, is_zip=True)
        self._records = records

    def admitted(self, cancel: Cancel) -> Iterator[Member]:
        """Have every entry admitted to the roll; those that are not known, to be noted in it.

        Raises AgentError: BUNDLE_REFUSED, BUNDLE_DAMAGED; Interrupted.
        """
        has_any, records, admit = self._has_any, self._records, self._roll.admit
        while True:
            if has_any:
                while self.take(no_stretch(), _ROOM):
                    cancel.check()
                self.end_stretch()  # its records lie side by side
            if not records.passed % 1024:
                cancel.check()
            member = records.next()
            if member is None:
                return
            admitted = admit(member)
            if admitted is not None:
                if has_any:
                    self.pass_by(admitted.path)
                yield admitted

    def _step(self, found: Stretch, room: int) -> int:
        """Add files as long as their records are in the bytes that were read; as take()."""
        row, count = self._next, len(found.wishes)
        buffer, first, base = self._records.ahead()
        at, last = first, min(first + room, len(buffer) - zip_record.PLACE.size)
        while row is not None and at <= last:
            path, mode, size, mtime_ns, old_pos, _, whole = row
            packed, name, extra, comment, pos = zip_record.PLACE.unpack_from(buffer, at)
            end = at + zip_record.PLACE.size + name + extra + comment
            if (
                end > len(buffer)
                or zip_record.without_times(buffer, at, name, extra, end) != whole
                or pos == zip_record.IN_ZIP64
                or pos + LOCAL_BYTES + name + packed > self._records.content_end
            ):
                break
            self._extend(old_pos, pos - old_pos, base + at)
            folder, _, file = path.rpartition("/")
            found.wishes.append((folder, file, mode, size, mtime_ns, None))
            at = end
            row = next(self._rows, None)
        self._next = row
        self._records.skip(at, len(found.wishes) - count)
        return at - first


class KnownFiles:
    """The known files of a zip, in the order in which they lie in it."""

    def __init__(self, draft: Draft, content: ZipContent, records: Records) -> None:
        self._draft = draft
        self._content = content
        self._records = records
        self._rows = draft.placed_files()
        self._next = next(self._rows, None)
        self.has_any = self._next is not None

    def place(self) -> int | None:
        """Where the next one lies."""
        return self._next[1] if self._next else None

    def take(self, same: Stretch, others: list[Member], before: int, room: int) -> int:
        """Read files in front of a position, of about `room` bytes at most; bytes of content.

        Those whose packed bytes are the old ones are added to `same`.
        """
        taken = content_bytes = 0
        while (row := self._next) is not None and taken < room and row[1] < before:
            record, pos, path, mode, size, mtime_ns, raw, whole = row
            self._next = after = next(self._rows, None)
            end = before if after is None or after[1] > before else after[1]
            packed = self._content.read_alike(pos, whole, end)
            if packed is None:
                packed = self._content.read(zip_record.to_member(whole, pos, path, size, end))
            if hashlib.sha256(packed).digest() == raw:
                folder, _, name = path.rpartition("/")
                same.wishes.append((folder, name, mode, size, mtime_ns, None))
                same.contents.append(packed)
                same.records.append(whole)
            else:
                member = self._records.again(record)
                member = member._replace(path=path, mode=mode, end=end)
                self._draft.take_back(member)
                others.append(member)
            taken += len(whole) + len(packed)
            content_bytes += size
        return content_bytes
