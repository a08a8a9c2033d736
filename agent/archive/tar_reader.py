"""Reading a tar as a stream of entries: ustar, GNU long names, and pax headers.

Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; tar(5). What
readers take differently is refused: sparse files, sizes below zero, headers that repeat, and
anything behind the end mark.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from agent.archive.member import EntryKind, Member
from agent.archive.refusals import REBUILD, damaged, refused, refused_bundle, shown

BLOCK = 512
_AFTER_PREFIX = BLOCK - 136  # what follows name, mode, owner, group and size
_AFTER_CHECKSUM = BLOCK - 156
_LATEST_TIME = 2**33  # seconds; every file system of ours can store times up to here
_MAX_HEADER_BYTES = 128 * 1024  # of a pax header; of a long name
_MAX_CONTENT_BYTES = 2**60  # far beyond any limit, and still an offset that the kernel takes
_MARKED_BYTES = 8 * 1024  # two long names and their headers
_MAX_PADDING_BYTES = 2**20  # zeros behind the end mark: a tape's record, and then some
_PIECE_BYTES = 256 * 1024
_AGAIN = "Pack the bundle again with tar --format=pax or --format=gnu."
_ZEROS = bytes(BLOCK)
_ADLER_MODULUS = 65521
_PLAIN_NUMBERS = b"01234567 \0"
_BELOW_ZERO = 0xFF  # first byte of a negative number in base 256

_FILE, _LINK, _DIR = b"0", b"2", b"5"
_REFUSED_TYPES = {
    b"1": ("is a hard link", "Pack the bundle with: tar --hard-dereference"),
    b"3": ("is a device", ""),
    b"4": ("is a device", ""),
    b"6": ("is a fifo", ""),
    b"S": ("is a sparse file", "Pack the bundle without --sparse."),
    b"M": ("goes on in another volume", ""),
    b"V": ("is a volume label", "Pack the bundle without --label."),
    b"D": ("belongs to an incremental dump", "Pack the bundle without --incremental."),
}
_MEANINGFUL = ("path", "linkpath", "size", "mtime")


class Stream(Protocol):
    """The bytes of a tar, forward only."""

    def position(self) -> int:
        """Offset of the next byte."""

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""

    def skip(self, count: int) -> None:
        """Leave out `count` bytes."""


class FileStream:
    """A tar in a file; what is skipped is not read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._bytes = b""
        self._start = 0
        self._at = 0

    def position(self) -> int:
        """Offset of the next byte."""
        return self._start + self._at

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        if self._at + count > len(self._bytes):
            self._start, self._at = self.position(), 0
            self._bytes = os.pread(self._fd, max(count, _PIECE_BYTES), self._start)
        piece = self._bytes[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def skip(self, count: int) -> None:
        """Leave out `count` bytes, also beyond the end."""
        self._at += count
        if self._at > len(self._bytes):
            self._start, self._at, self._bytes = self.position(), 0, b""


class PieceStream:
    """A tar that comes in pieces, as it is inflated."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._bytes = b""
        self._at = 0
        self._start = 0
        self._mark = 0

    def position(self) -> int:
        """Offset of the next byte."""
        return self._start + self._at

    def mark(self) -> None:
        """Keep what is read from here on for marked()."""
        self._mark = self._at

    def marked(self) -> bytes:
        """What was read or left out since mark(); empty if it is more than a few headers."""
        return self._bytes[self._mark : self._at] if self._mark >= 0 else b""

    def ahead(self, count: int) -> tuple[bytes, int]:
        """Bytes and where in them the stream stands, with `count` behind it if there are as many.

        What of them is used is to be left out then.
        """
        if self._at + count > len(self._bytes):
            self._fill(count)
        return self._bytes, self._at

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        if self._at + count > len(self._bytes):
            self._fill(count)
        piece = self._bytes[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def skip(self, count: int) -> None:
        """Leave out `count` bytes, or what there is."""
        while count:
            left = len(self._bytes) - self._at
            step = min(count, left)
            self._at += step
            count -= step
            if count and not self._fill(1):
                return

    def _fill(self, count: int) -> bool:
        """Move the rest to the front and have at least `count` bytes, if there are as many."""
        if not 0 <= self._at - self._mark <= _MARKED_BYTES:
            self._mark = -1
        first = self._at if self._mark < 0 else self._mark
        parts = [self._bytes[first:]]
        self._start, self._at = self._start + first, self._at - first
        self._mark = min(self._mark, 0)
        there = len(parts[0]) - self._at
        while there < count and (piece := next(self._pieces, b"")):
            parts.append(piece)
            there += len(piece)
        self._bytes = b"".join(parts)
        return there >= count


def read_members(stream: Stream) -> Iterator[Member]:
    """Every entry, in the order of the tar. Between two of them the caller may read content.

    After a file is yielded, the stream stands at the first byte of its content. It may also be
    read on to where the headers of some later entry begin.
    Raises AgentError (BUNDLE_REFUSED, BUNDLE_DAMAGED) at the first entry that breaks a rule.
    """
    extra: dict[str, str] = {}
    name: str | None = None
    while True:
        block = stream.read(BLOCK)
        if block == _ZEROS:
            _check_padding(stream, extra)
            return
        if len(block) < BLOCK:
            raise damaged(
                f"the tar ends {_behind(name)} without an end mark: is the file still being copied?"
            )
        mode, size, mtime, checksum = _numbers(block, name)
        _check_sum(block, checksum, name)
        if block[156:157] in b"xgLK":
            _read_extra(stream, block, size, extra)
            continue
        member = _to_member(block, (stream.position(), mode, size, mtime), extra)
        extra.clear()
        name = member.path
        yield member
        stream.skip(max(0, end_of(member) - stream.position()))


def end_of(member: Member) -> int:
    """Where the next entry's headers begin."""
    return member.pos + -(-member.packed // BLOCK) * BLOCK


def feed_headers(feed: Callable[[bytes], object], headers: bytes) -> None:
    """Feed an entry's headers without the time of the last one, and its checksum: tar(5)."""
    feed(headers[:-_AFTER_PREFIX])
    feed(headers[-_AFTER_CHECKSUM:])


def read_whole(stream: Stream, member: Member) -> bytes:
    """The content of the small entry that read_members() yielded last."""
    content = stream.read(member.size)
    if len(content) < member.size:
        raise damaged(f"entry {shown(member.path)} is cut off")
    return content


def read_pieces(stream: Stream, member: Member) -> Iterator[bytes]:
    """The content of the entry that read_members() yielded last, in pieces."""
    left = member.size
    while left:
        piece = stream.read(min(left, _PIECE_BYTES))
        if not piece:
            raise damaged(f"entry {shown(member.path)} is cut off")
        left -= len(piece)
        yield piece


def _check_padding(stream: Stream, extra: dict[str, str]) -> None:
    """Behind the end mark there may be zeros only, and not many."""
    if extra:
        raise damaged("a header without its entry stands before the end mark")
    count = 0
    while piece := stream.read(_PIECE_BYTES):
        count += len(piece)
        if piece.count(0) != len(piece):
            raise refused_bundle(
                "something follows the tar's end mark", "Do not join tars: pack one."
            )
        if count > _MAX_PADDING_BYTES:
            raise refused_bundle("too many zeros follow the tar's end mark", _AGAIN)


def _check_sum(block: bytes, checksum: int, name: str | None) -> None:
    """The header's checksum: the sum of its bytes, its own field taken as blanks.

    The lower half of adler32 is that sum plus one, modulo 65521, and ten times as quick as sum().
    """
    total = (zlib.adler32(block) & 0xFFFF) - sum(block[148:156]) + 8 * ord(" ") - 1
    if (total - checksum) % _ADLER_MODULUS:
        raise damaged(f"the header {_behind(name)} has the wrong checksum")


def _behind(name: str | None) -> str:
    return "at its start" if name is None else f"behind entry {shown(name)}"


def _numbers(block: bytes, name: str | None) -> tuple[int, int, int, int]:
    """Mode, size, mtime and checksum of a header; a time before 1970 is 0."""
    fields = [block[100:108], block[124:136], block[136:148], block[148:156]]
    if not block[100:156].translate(None, _PLAIN_NUMBERS):
        try:
            mode, size, mtime, checksum = [int(field.strip(b" \0") or b"0", 8) for field in fields]
        except ValueError:
            pass  # a blank or NUL among the digits: looked at one by one
        else:
            return mode, size, mtime, checksum
    if fields[2][0] == _BELOW_ZERO:
        fields[2] = b"0"
    mode, size, mtime, checksum = [_number(field, name) for field in fields]
    return mode, size, mtime, checksum


def _number(field: bytes, name: str | None) -> int:
    """A number of a header: octal text, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        if field[0] == _BELOW_ZERO:
            raise refused_bundle(f"the header {_behind(name)} has a number below zero", _AGAIN)
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.translate(None, b"01234567"):
        raise damaged(f"the header {_behind(name)} is not a tar header")
    return int(digits or b"0", 8)


def _read_extra(stream: Stream, block: bytes, size: int, extra: dict[str, str]) -> None:
    """Take in a header that says more about the next entry (pax x; GNU L, K) or all (pax g)."""
    kind = block[156:157]
    if size > _MAX_HEADER_BYTES:
        raise refused_bundle(
            f"it has an extended header of {size} bytes",
            f"Pack it without extended attributes; {_MAX_HEADER_BYTES} bytes are allowed.",
        )
    content = stream.read(size)
    stream.skip(-size % BLOCK)
    if len(content) < size:
        raise damaged("it ends in an extended header: is the file still being copied?")
    if kind in b"xg":
        records = _pax_records(content)
        if kind == b"g" and records.keys() & {"path", "linkpath", "size"}:
            raise refused_bundle("a global header names or sizes its entries", _AGAIN)
        if kind == b"g":
            return
    else:
        value = content.split(b"\0", 1)[0]
        records = {"path" if kind == b"L" else "linkpath": _text(value)}
    if extra.keys() & records.keys():
        raise refused_bundle("two extended headers for one entry say the same thing", _AGAIN)
    extra.update(records)


def _pax_records(content: bytes) -> dict[str, str]:
    """The records (length, blank, key, =, value, newline) that mean something to us."""
    records = {"a pax header": ""}  # so that a second one for the same entry is noticed
    while content:
        digits, _, _ = content[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record, content = content[len(digits) + 1 : length], content[length:]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or length > _MAX_HEADER_BYTES:
            raise damaged("a pax header cannot be read")
        if key.startswith(b"GNU.sparse."):
            raise refused_bundle("it holds a sparse file", "Pack the bundle without --sparse.")
        name = key.decode(errors="replace")
        if name in _MEANINGFUL:
            records[name] = _text(value[:-1])
    return records


def _to_member(block: bytes, numbers: tuple[int, int, int, int], extra: dict[str, str]) -> Member:
    """The entry of a header. numbers: position of the content, mode, size, mtime."""
    pos, mode, size, mtime = numbers
    path = extra["path"] if "path" in extra else _header_name(block)
    kind, mtime_ns = block[156:157], min(mtime, _LATEST_TIME) * 10**9
    if extra:
        if "size" in extra:
            size = _pax_size(extra["size"], path)
        if "mtime" in extra:
            mtime_ns = _pax_time(extra["mtime"], path)
    if size > _MAX_CONTENT_BYTES:
        raise refused(path, f"has the size {size}")
    if kind == b"\0":
        kind = _DIR if path.endswith("/") else _FILE
    if kind == _FILE:
        if path.endswith("/"):
            raise refused(path, "is named as a folder but marked as a file")
        return Member(pos, path, EntryKind.FILE, mode & 0o7777, size, mtime_ns, None, size)
    return _to_other(block, kind, Member(pos, path, EntryKind.DIR, 0o755, size, mtime_ns), extra)


def _to_other(block: bytes, kind: bytes, member: Member, extra: dict[str, str]) -> Member:
    """A folder or link; everything else is refused."""
    if kind not in (_DIR, _LINK):
        cause, remedy = _REFUSED_TYPES.get(kind, (f"is of the unknown type {kind!r}", ""))
        raise refused(member.path, cause, remedy or REBUILD)
    if member.size:
        raise refused(member.path, "is no file, but has content of its own")
    if kind == _DIR:
        return member
    target = extra.get("linkpath")
    if target is None:
        target = _text(block[157:257].split(b"\0", 1)[0])
    return member._replace(kind=EntryKind.LINK, mode=0o777, target=target)


def _header_name(block: bytes) -> str:
    """The name in the header itself; only ustar has a prefix field."""
    name = _text(block[:100].split(b"\0", 1)[0])
    prefix = block[345:500].split(b"\0", 1)[0]
    if prefix and block[257:263] == b"ustar\0":
        return f"{_text(prefix)}/{name}"
    return name


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        remedy = "Rename it, or pack the bundle in a UTF-8 locale."
        raise refused(raw, "is not a UTF-8 name", remedy) from error


def _pax_size(text: str, path: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise refused(path, f"has the size {shown(text)}")
    return int(text)


def _pax_time(text: str, path: str) -> int:
    """A pax time, "1700000000.123456789", in nanoseconds; before 1970 it is 0."""
    whole, _, fraction = text.partition(".")
    if whole.startswith("-"):
        return 0
    digits = (fraction + "000000000")[:9]
    if not (whole + digits).isdigit() or not text.isascii() or len(whole) > 19:
        raise damaged(f"entry {shown(path)} has the time {shown(text)}")
    return min(int(whole), _LATEST_TIME) * 10**9 + int(digits)
