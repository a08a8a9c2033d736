"""Reading what the entries of a zip contain, each checked against the central directory.

Source: PKWARE APPNOTE 6.3.10, section 4.3.7 (local header), 4.4.4 (flags, methods).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

from agent.archive import inflate, names, zip_record
from agent.archive.member import Member
from agent.archive.refusals import damaged, refused, shown
from agent.archive.window import Window
from agent.model.errors import AgentError

STORED = 0
DEFLATED = 8
METHODS = (STORED, DEFLATED)
LOCAL_BYTES = 30  # a local header without name and extra fields

Feed = Callable[[bytes], object]

_LOCAL = struct.Struct("<6x2H4x3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_UTF8 = 0x0800
_SIZES_FOLLOW = 0x0008
_ENCRYPTED = 0x0001
_IN_ZIP64 = 0xFFFFFFFF
_PIECE_BYTES = 256 * 1024


def decode_name(raw: bytes, flags: int) -> str:
    """A name as text: UTF-8 if flagged so, else UTF-8 if it is, else cp437 (which always is)."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if flags & _UTF8:
            raise refused(raw, "has a name that is not the UTF-8 it is said to be") from error
        return raw.decode("cp437")


class ZipContent:
    """Reads entries of the zip that `fd` is open on."""

    rereads = True
    is_zip = True

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._window = Window(fd)
        self._crc32 = inflate.library().crc32

    def read(self, member: Member) -> bytes:
        """The packed bytes of a small entry."""
        packed = self._window.read(self._start(member), member.packed)
        if len(packed) < member.packed:
            raise damaged(f"entry {shown(member.path)} is cut off")
        return packed

    def read_alike(self, pos: int, record: bytes, end: int) -> bytes | None:
        """The packed bytes of a small entry if its local header just repeats its record.

        record: as zip_record.without_times() gives it. None: it takes a look by read().
        """
        packed_bytes, name_bytes = zip_record.lengths(record)
        header = self._window.read(pos, LOCAL_BYTES + name_bytes)
        if not header.startswith(_LOCAL_MAGIC) or not zip_record.is_repeated(header, record):
            return None
        start = pos + len(header) + int.from_bytes(header[28:LOCAL_BYTES], "little")
        if start + packed_bytes > end:
            return None
        return self._window.read(start, packed_bytes)

    def unpacked(self, member: Member, packed: bytes) -> bytes:
        """The content of a small entry from its packed bytes, its size and CRC checked."""
        content = packed
        if member.method == DEFLATED:
            try:  # one byte more than it may be, so that a lie about the size is seen
                content, is_whole = inflate.whole(packed, member.size + 1)
            except inflate.CannotInflate as error:
                raise _bad_deflate(member) from error
            if not is_whole:
                raise _bad_deflate(member, grown=len(content) > member.size)
        _check(member, len(content), self._crc32(content, 0))
        return content

    def headers(self, _member: Member) -> bytes:
        """Nothing: packed bytes alone tell that a file is the same."""
        return b""

    def packed_pieces(self, member: Member) -> Iterator[bytes]:
        """The packed bytes of a big entry, in pieces."""
        start, left = self._start(member), member.packed
        while left:
            piece = os.pread(self._fd, min(left, _PIECE_BYTES), start)
            if not piece:
                raise damaged(f"entry {shown(member.path)} is cut off")
            yield piece
            start, left = start + len(piece), left - len(piece)

    def pieces(self, member: Member, feed: Feed) -> Iterator[bytes]:
        """The content of a big entry in pieces, checked.

        `feed` is given the packed bytes where they are others than the content.
        """
        size, crc = 0, 0
        packed = self.packed_pieces(member)
        for piece in packed if member.method == STORED else _inflated(member, packed, feed):
            size += len(piece)
            if size > member.size:
                break
            crc = self._crc32(piece, crc)
            yield piece
        _check(member, size, crc)

    def _start(self, member: Member) -> int:
        """Where the packed bytes begin, after a look whether the local header agrees."""
        name = member.path.encode()
        header = self._window.read(member.pos, LOCAL_BYTES + len(name))
        if len(header) < LOCAL_BYTES or not header.startswith(_LOCAL_MAGIC):
            raise damaged(f"the local header of entry {shown(member.path)} is missing")
        flags, method, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack_from(header)
        start: int = member.pos + LOCAL_BYTES + name_bytes + extra_bytes
        if name_bytes != len(name) or not header.endswith(name):
            self._check_name(member, name_bytes, flags)
        if method != member.method or flags & _ENCRYPTED:
            raise refused(member.path, "is packed otherwise according to its local header")
        if (crc, packed, size) != (member.crc, member.packed, member.size):
            crc_agrees = crc == member.crc
            sizes_agree = packed in (member.packed, _IN_ZIP64) and size in (member.size, _IN_ZIP64)
            if not flags & _SIZES_FOLLOW and not (crc_agrees and sizes_agree):
                raise refused(member.path, "has another size or CRC in its local header")
        if start + member.packed > member.end:
            raise refused(member.path, "overlaps with the entry behind it")
        return start

    def _check_name(self, member: Member, name_bytes: int, flags: int) -> None:
        """The local name may differ in its bytes, but must mean the same path."""
        name = self._window.read(member.pos + LOCAL_BYTES, name_bytes)
        if names.clean(decode_name(name, flags)) != names.clean(member.path):
            raise refused(member.path, f"is called {shown(name)} in its local header")


def _inflated(member: Member, packed: Iterator[bytes], feed: Feed) -> Iterator[bytes]:
    """Inflate a big entry piece by piece."""

    def fed() -> Iterator[bytes]:
        for piece in packed:
            feed(piece)
            yield piece

    try:
        yield from inflate.pieces(fed(), member.packed, _PIECE_BYTES)
    except inflate.CannotInflate as error:
        raise _bad_deflate(member) from error


def _check(member: Member, size: int, crc: int) -> None:
    if size > member.size:
        raise refused(member.path, f"is bigger than the {member.size} bytes that its header says")
    if size != member.size:
        raise damaged(f"entry {shown(member.path)} has {size} of {member.size} bytes")
    if crc != member.crc:
        raise damaged(f"entry {shown(member.path)} has the wrong CRC")


def _bad_deflate(member: Member, *, grown: bool = False) -> AgentError:
    if grown:
        return refused(member.path, f"is bigger than the {member.size} bytes that its header says")
    return damaged(f"entry {shown(member.path)} cannot be inflated")
