"""Batches of entries to write, and where their content comes from, for each kind of archive."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from agent.archive import tar_reader
from agent.archive.draft import BATCH, Draft
from agent.archive.gunzip import Gunzip
from agent.archive.known import Stretch, no_stretch
from agent.archive.known_records import KnownFiles
from agent.archive.known_stream import KnownInStream
from agent.archive.member import SMALL_BYTES, SPECIAL_BITS, EntryKind, Member
from agent.archive.refusals import damaged, shown
from agent.archive.roll import Roll
from agent.archive.window import Window
from agent.archive.zip_content import Feed, ZipContent

_BATCH_BYTES = 512 * 1024
_PIECE_BYTES = 256 * 1024


class Batch(NamedTuple):
    """files: to be read, and compared one by one; known: to be linked."""

    files: list[Member]
    known: Stretch

    @property
    def is_empty(self) -> bool:
        """Whether there is no file in it."""
        return not self.files and not self.known.wishes


class Content(Protocol):
    """Reads the content of entries.

    rereads: what was read can be read again. is_zip: packed bytes have a digest of their own.
    """

    rereads: bool
    is_zip: bool

    def read(self, member: Member) -> bytes:
        """The packed bytes of a small entry."""

    def headers(self, member: Member) -> bytes:
        """The headers of an entry that may be known again by them, else nothing. Once."""

    def unpacked(self, member: Member, packed: bytes) -> bytes:
        """Its content from its packed bytes, checked."""

    def packed_pieces(self, member: Member) -> Iterator[bytes]:
        """The packed bytes of a big entry."""

    def pieces(self, member: Member, feed: Feed) -> Iterator[bytes]:
        """Its content, checked; `feed` is given the packed bytes if they are others."""


class Batches(Protocol):
    """Hands out every file of an archive once.

    The content of a batch is read before the next is taken.
    """

    @property
    def content(self) -> Content:
        """Where the content of what take() gave is read."""

    def take(self) -> Batch:
        """The next files, all empty when there are no more."""

    def note_done(self, size: int) -> None:
        """So many bytes of content were written or linked."""

    def progress(self) -> tuple[int, int]:
        """Bytes done and in all."""


class TarContent:
    """The content of a tar's entries, from its file."""

    rereads = True
    is_zip = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._window = Window(fd)

    def read(self, member: Member) -> bytes:
        """The bytes of a small entry."""
        content = self._window.read(member.pos, member.size)
        if len(content) < member.size:
            raise damaged(f"entry {shown(member.path)} is cut off")
        return content

    def unpacked(self, _member: Member, packed: bytes) -> bytes:
        """The same bytes."""
        return packed

    def headers(self, _member: Member) -> bytes:
        """Nothing: a tar is read from its file by its headers."""
        return b""

    def packed_pieces(self, member: Member) -> Iterator[bytes]:
        """The content of a big entry, in pieces."""
        at, end = member.pos, member.pos + member.size
        while at < end:
            piece = os.pread(self._fd, min(end - at, _PIECE_BYTES), at)
            if not piece:
                raise damaged(f"entry {shown(member.path)} is cut off")
            yield piece
            at += len(piece)

    def pieces(self, member: Member, _feed: Feed) -> Iterator[bytes]:
        """The content of a big entry, in pieces."""
        return self.packed_pieces(member)


class StreamContent:
    """The content of a tgz's entries: small ones as they were put aside, a big one as it comes."""

    rereads = False
    is_zip = False

    def __init__(self, stream: tar_reader.Stream) -> None:
        self._stream = stream
        self._held: dict[int, tuple[bytes, bytes]] = {}

    def hold(self, member: Member, headers: bytes) -> None:
        """Put aside the content of a small entry, where the stream stands."""
        self._held[member.pos] = tar_reader.read_whole(self._stream, member), headers

    def read(self, member: Member) -> bytes:
        """The bytes of a small entry."""
        return self._held[member.pos][0]

    def headers(self, member: Member) -> bytes:
        """The headers of a small entry, once."""
        return self._held.pop(member.pos)[1]

    def unpacked(self, _member: Member, packed: bytes) -> bytes:
        """The same bytes."""
        return packed

    def packed_pieces(self, member: Member) -> Iterator[bytes]:
        """The content of a big entry, once."""
        return tar_reader.read_pieces(self._stream, member)

    def pieces(self, member: Member, _feed: Feed) -> Iterator[bytes]:
        """The content of a big entry, once."""
        return tar_reader.read_pieces(self._stream, member)


class SeekingBatches:
    """Batches of a zip or tar: its roll is complete, its content is read where it lies."""

    def __init__(
        self,
        draft: Draft,
        content: ZipContent | TarContent,
        end: int,
        *,
        strip: int,
        size: int,
        known: KnownFiles | None = None,
    ) -> None:
        """end: of the content; strip: as files are written; size: of what is in them, in all."""
        self._draft = draft
        self._end = end
        self._strip = strip
        self._size = size
        self._known = known if known and known.has_any else None
        self._rows: deque[Member] = deque()
        self._after = -1
        self._are_all_read = False
        self._done = 0
        self.content = content

    def take(self) -> Batch:
        """The next files: each where it lies, so that it is read in order."""
        files: list[Member] = []
        known = no_stretch()
        left = _BATCH_BYTES
        while left > 0 and len(files) < BATCH:
            if not self._rows:
                self._read_rows()
            before = self._rows[0].pos if self._rows else self._end
            place = self._known.place() if self._known else None
            if self._known and place is not None and place < before:
                left -= self._known.take(known, files, before, left)
            elif self._rows:
                member = self._rows.popleft()
                if place is not None and place < member.end:
                    member = member._replace(end=place)
                files.append(member)
                left -= member.size
            else:
                break
        return Batch(files, known)

    def _read_rows(self) -> None:
        if self._are_all_read:
            return
        self._rows.extend(self._draft.rows_after(self._after, self._strip, self._end))
        self._are_all_read = not self._rows
        if self._rows:
            self._after = self._rows[-1].pos

    def note_done(self, size: int) -> None:
        """So many bytes of content were written or linked."""
        self._done += size

    def progress(self) -> tuple[int, int]:
        """Bytes of content."""
        return self._done, self._size


class StreamBatches:
    """Batches of a tgz: entries are admitted to the roll as the stream brings them."""

    def __init__(self, draft: Draft, roll: Roll, gunzip: Gunzip, pieces: Iterator[bytes]) -> None:
        self._draft = draft
        self._roll = roll
        self._gunzip = gunzip
        self._stream = tar_reader.PieceStream(pieces)
        self.content = StreamContent(self._stream)
        self._members = tar_reader.read_members(self._stream)
        self._known = KnownInStream(draft, roll, self._stream)
        self._end = 0  # of the entry read last, where headers may begin

    def take(self) -> Batch:
        """The next files: small ones with their content put aside, or one big one."""
        while True:
            found, known, ended = self._read_on()
            self._roll.note(found)
            files = [member for member in found if member.kind is EntryKind.FILE]
            if files and self._draft.has_old:
                files = self._draft.rows_after(files[0].pos - 1, 0, 0)
            if files or known.wishes or ended:
                return Batch(files, known)

    def _read_on(self) -> tuple[list[Member], Stretch, bool]:
        """Some entries, up to a big file's content; whether the stream ended."""
        found: list[Member] = []
        known = no_stretch()
        left = _BATCH_BYTES
        while left > 0 and len(found) < BATCH:
            self._stream.skip(max(0, self._end - self._stream.position()))
            left -= self._known.take(known, left)
            self._stream.mark()
            member = next(self._members, None)
            if member is None:
                self._known.end_stretch()
                return found, known, True
            self._end = tar_reader.end_of(member)
            admitted = self._roll.admit(member)
            if admitted is None:
                continue
            self._known.pass_by(admitted.path)
            found.append(admitted)
            if member.size > SMALL_BYTES:
                return found, known, False
            if member.kind is EntryKind.FILE:
                is_plain = not member.mode & SPECIAL_BITS  # else there is a warning to give again
                self.content.hold(admitted, self._stream.marked() if is_plain else b"")
                left -= member.size
        return found, known, False

    def note_done(self, _size: int) -> None:
        """Bytes of the archive are counted where they are read."""

    def progress(self) -> tuple[int, int]:
        """Bytes of the archive."""
        return self._gunzip.consumed, self._gunzip.size
