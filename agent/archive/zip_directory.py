"""Reading a zip's central directory, which alone is trusted to say what the zip holds.

Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.4; Info-ZIP's extra field 0x5455 (times). What
different readers may take differently is refused: bytes around the archive, several parts.
"""

from __future__ import annotations

import calendar
import functools
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agent.archive import zip_content, zip_record
from agent.archive.member import SMALL_BYTES, SPECIAL_BITS, EntryKind, Member
from agent.archive.refusals import damaged, refused, refused_bundle, shown
from agent.archive.zip_record import IN_ZIP64
from agent.model.errors import AgentError

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCATOR64_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
_ENTRY = struct.Struct("<4sxB2x4H3L4H2xLL")  # without versions and internal attributes
_ENTRY_MAGIC = b"PK\x01\x02"
_LENGTHS = slice(9, 12)  # of name, extra fields and comment
_EXTRA = struct.Struct("<HH")
_COMMENT_MAX = 0xFFFF
_LONGEST = _ENTRY.size + 3 * _COMMENT_MAX
_ZIP64_EXTRA = 0x0001
_TIME_EXTRA = 0x5455

_READ_BYTES = 256 * 1024
_UNIX_HOSTS = (3, 19)  # Unix, macOS: the upper half of external_attr is st_mode
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PATCH = 0x0020
_REFUSED_FLAGS = _ENCRYPTED | _PATCH
_DEFAULT_MODE = 0o644
_LINK_BYTES = 4096
_DOS_EPOCH = calendar.timegm((1980, 1, 1, 0, 0, 0))

_PLAIN_ZIP = "Build the bundle as one plain zip file, nothing in front of it or behind it."


class Directory(NamedTuple):
    """Where the central directory lies, and how many entries it has."""

    offset: int
    size: int
    entries: int


def find_directory(fd: int) -> Directory:
    """Find the central directory from the end record of the zip that `fd` is open on."""
    size = os.fstat(fd).st_size
    start = max(0, size - _COMMENT_MAX - _END.size - _LOCATOR64.size)
    tail = os.pread(fd, size - start, start)
    at = _find_end(tail)
    _, disk, first_disk, here, count, length, offset, _ = _END.unpack_from(tail, at)
    directory, end = Directory(offset, length, count), start + at
    if tail[max(0, at - _LOCATOR64.size) : at].startswith(_LOCATOR64_MAGIC):
        end = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)[2]
        directory = _read_end64(fd, end, start + at - _LOCATOR64.size, directory)
    elif offset == IN_ZIP64 or length == IN_ZIP64:
        raise damaged("the zip64 end record is missing")
    if disk not in (0, 0xFFFF) or first_disk not in (0, 0xFFFF) or here != count:
        raise refused_bundle("it is one part of a zip in several parts", _PLAIN_ZIP)
    if directory.offset + directory.size != end:
        raise refused_bundle(
            f"its offsets do not fit: the central directory should end at byte {end}, but ends at "
            f"{directory.offset + directory.size}; something was put in front of the zip",
            _PLAIN_ZIP,
        )
    return directory


class Records:
    """The central directory, record by record. content_end: where it begins.

    passed: how many records were. Methods raise AgentError (BUNDLE_REFUSED, BUNDLE_DAMAGED)
    at the first entry that breaks a rule.
    """

    def __init__(self, fd: int, directory: Directory) -> None:
        self._fd = fd
        self._links = zip_content.ZipContent(fd)
        self._directory = directory
        self._base, self._end = directory.offset, directory.offset + directory.size
        self._buffer, self._at = b"", 0
        self.content_end = directory.offset
        self.passed = 0

    def ahead(self) -> tuple[bytes, int, int]:
        """Some bytes, where in them the next record begins, and where they begin in the file.

        The next record is whole in them, if there is one.
        """
        base, at, there = self._base, self._at, len(self._buffer)
        if there - at < _LONGEST and base + there < self._end:
            self._base, self._at = base + at, 0
            size = min(_READ_BYTES, self._end - self._base)
            self._buffer = os.pread(self._fd, size, self._base)
        return self._buffer, self._at, self._base

    def skip(self, to: int, count: int) -> None:
        """Go on at this place of the bytes that ahead() gave, behind so many records."""
        self._at = to
        self.passed += count

    def next(self) -> Member | None:
        """The next entry, a link with its target; None at the end."""
        buffer, at = self._buffer, self._at
        if len(buffer) - at < _LONGEST:
            buffer, at, _ = self.ahead()
        if at >= len(buffer):
            if self.passed != self._directory.entries:
                wanted = self._directory.entries
                raise damaged(f"it should hold {wanted} entries, but lists {self.passed}")
            return None
        member, self._at = self._parse(buffer, at)
        self.passed += 1
        if member.kind is EntryKind.LINK:
            return member._replace(target=_read_link(self._links, member))
        return member

    def again(self, place: int) -> Member:
        """The file whose record was passed, and lies at this place of the zip."""
        size = min(zip_record.LONGEST, self._end - place)
        return self._parse(os.pread(self._fd, size, place), 0)[0]

    def _parse(self, buffer: bytes, at: int) -> tuple[Member, int]:
        """The entry whose record begins at this place of the buffer, and where it ends."""
        if at + _ENTRY.size > len(buffer):
            raise damaged("the central directory is cut off")
        fields = _ENTRY.unpack_from(buffer, at)
        name_bytes, extra_bytes, comment_bytes = fields[_LENGTHS]
        name_end = at + _ENTRY.size + name_bytes
        extra_end = name_end + extra_bytes
        end = extra_end + comment_bytes
        if fields[0] != _ENTRY_MAGIC or end > len(buffer):
            raise damaged("the central directory is damaged")
        name = buffer[at + _ENTRY.size : name_end]
        record = None
        if end - at <= zip_record.LONGEST:
            record = zip_record.without_times(buffer, at, name_bytes, extra_bytes, end)
        extra = buffer[name_end:extra_end]
        return _to_member(name, extra, fields, record, self.content_end), end


def read_members(fd: int, directory: Directory) -> Iterator[Member]:
    """Every entry of the central directory, in its order; the links with their targets.

    Raises AgentError (BUNDLE_REFUSED, BUNDLE_DAMAGED) at the first entry that breaks a rule.
    """
    records = Records(fd, directory)
    while (member := records.next()) is not None:
        yield member


def _find_end(tail: bytes) -> int:
    """The place of the end record in `tail`: its comment must end where the file ends."""
    at = tail.rfind(_END_MAGIC)
    if at < 0:
        raise damaged("the end of central directory is missing: is the file still being copied?")
    while at >= 0:
        if at + _END.size <= len(tail):
            comment_bytes = _END.unpack_from(tail, at)[7]
            if at + _END.size + comment_bytes == len(tail):
                return at
        at = tail.rfind(_END_MAGIC, 0, at)
    raise damaged("bytes follow the end of the zip: was something appended to it?", _PLAIN_ZIP)


def _read_end64(fd: int, offset: int, locator: int, old: Directory) -> Directory:
    """The zip64 end record; what the old end record says as well must agree with it."""
    record = os.pread(fd, _END64.size, offset) if offset < locator else b""
    if len(record) < _END64.size or not record.startswith(_END64_MAGIC):
        raise damaged("the zip64 end record is not where it should be")
    _, size, _, _, disk, first_disk, here, count, length, start = _END64.unpack(record)
    if offset + 12 + size != locator:
        raise damaged("the zip64 end record has the wrong size")
    if disk or first_disk or here != count:
        raise refused_bundle("it is one part of a zip in several parts", _PLAIN_ZIP)
    new = Directory(start, length, count)
    if old.offset not in (start, IN_ZIP64) or old.size not in (length, IN_ZIP64):
        raise damaged("its two end records contradict each other")
    if old.entries not in (count, 0xFFFF):
        raise damaged("its two end records contradict each other")
    return new


def _to_member(
    raw_name: bytes, extra: bytes, fields: tuple[int, ...], record: bytes | None, content_end: int
) -> Member:
    """One entry. fields: as _ENTRY has them."""
    _, host, flags, method, time, date, crc, packed, size, _, _, _, disk, attributes, pos = fields
    name = zip_content.decode_name(raw_name, flags)
    if IN_ZIP64 in (size, packed, pos):
        size, packed, pos = _sizes64((size, packed, pos), extra, name)
        record = None
    if flags & _REFUSED_FLAGS or method not in zip_content.METHODS:
        raise _not_supported(name, flags, method)
    if disk not in (0, 0xFFFF):
        raise refused_bundle("it is one part of a zip in several parts", _PLAIN_ZIP)
    if pos + zip_content.LOCAL_BYTES + len(raw_name) + packed > content_end:
        raise refused(name, "lies outside the archive's content")
    kind, mode = _kind_and_mode(name, attributes >> 16 if host in _UNIX_HOSTS else 0)
    if kind is EntryKind.DIR:
        if size:
            raise refused(name, "is a folder with content of its own")
    elif method == zip_content.STORED and packed != size:
        raise refused(name, f"is stored, but takes {packed} bytes for its size of {size}")
    mtime_ns = _seconds(date, time, extra) * 10**9
    if kind is not EntryKind.FILE or mode & SPECIAL_BITS or max(size, packed) > SMALL_BYTES:
        record = None  # nor is what gives a warning known again
    return Member(
        pos, name, kind, mode, size, mtime_ns, None, packed, method, crc, record, content_end
    )


def _not_supported(name: str, flags: int, method: int) -> AgentError:
    if flags & _ENCRYPTED:
        return refused(name, "is encrypted", "Build the bundle without a password.")
    remedy = "Build the bundle with the methods deflate or store, as zip(1) does."
    if flags & _PATCH:
        return refused(name, "is a patch of another file", remedy)
    return refused(name, f"is packed by method {method}, which is not supported", remedy)


def _extra_field(extra: bytes, wanted: int) -> bytes:
    """The value of the first extra field of that kind; b"" without one."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _sizes64(numbers: tuple[int, int, int], extra: bytes, name: str) -> tuple[int, int, int]:
    """Size, packed size and offset: those from the zip64 extra field that did not fit."""
    value = _extra_field(extra, _ZIP64_EXTRA)
    found = []
    for number in numbers:
        if number == IN_ZIP64:
            if len(value) < 8:
                raise damaged(f"the zip64 numbers of entry {shown(name)} are missing")
            found.append(int.from_bytes(value[:8], "little"))
            value = value[8:]
        else:
            found.append(number)
    return found[0], found[1], found[2]


def _seconds(date: int, time: int, extra: bytes) -> int:
    """The mtime in Unix seconds, of the extra field if there is one; 0 if it is before 1970."""
    value = _extra_field(extra, _TIME_EXTRA)
    if len(value) >= 5 and value[0] & 1:
        return max(0, int.from_bytes(value[1:5], "little", signed=True))
    return _dos_seconds(date, time)


@functools.lru_cache(maxsize=1024)
def _dos_seconds(date: int, time: int) -> int:
    """A DOS time as Unix seconds. It has no zone: taken as UTC, the same on every host."""
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return _DOS_EPOCH
    return calendar.timegm((year, month, day, time >> 11, time >> 5 & 63, (time & 31) * 2))


def _kind_and_mode(name: str, mode: int) -> tuple[EntryKind, int]:
    """What the entry is: a slash at the end makes a folder, else st_mode says it (0: unknown)."""
    file_type = stat.S_IFMT(mode)
    if name.endswith("/"):
        if file_type not in (0, stat.S_IFDIR):
            raise refused(name, "is named as a folder but marked as something else")
        return EntryKind.DIR, 0o755
    if file_type in (0, stat.S_IFREG):
        return EntryKind.FILE, mode & 0o7777 or _DEFAULT_MODE
    if file_type == stat.S_IFDIR:
        return EntryKind.DIR, 0o755
    if file_type == stat.S_IFLNK:
        return EntryKind.LINK, 0o777
    raise refused(name, "is a device, fifo or socket")


def _read_link(content: zip_content.ZipContent, member: Member) -> str:
    if max(member.size, member.packed) > _LINK_BYTES:
        raise refused(member.path, f"is a link with a target of {member.size} bytes")
    target = content.unpacked(member, content.read(member))
    try:
        return target.decode()
    except UnicodeDecodeError as error:
        raise refused(member.path, "is a link whose target is not UTF-8") from error
