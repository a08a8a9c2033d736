"""An entry's record in a zip's central directory, as it is known again in another zip.

What every build makes anew is left out of it: where the entry lies, and its times. Source: PKWARE
APPNOTE 6.3.10, section 4.3.12; Info-ZIP's extra field 0x5455 (times).
"""

from __future__ import annotations

import struct

from agent.archive.member import EntryKind, Member

LEFT_OUT = 8  # bytes; times in an extra field are zeros
LONGEST = 1024  # one with a longer name, comment or extra field is not kept
IN_ZIP64 = 0xFFFFFFFF  # the true number stands in the zip64 extra field

PLACE = struct.Struct("<20xL4x3H8xL")  # packed size; lengths of name, extra, comment; position
"""Of a whole record: what tells how long it is, and where its entry lies."""

_LENGTHS = struct.Struct("<16xL4xH")
_CONTENT = struct.Struct("<10xH2L")  # method, CRC, packed size
_NAME = 38
_TIMES = b"UT\x05\x00"
_TIMES_AT = 5  # behind the head of the extra field and its flags
_TIMES_END = 9


def without_times(buffer: bytes, at: int, name_bytes: int, extra_bytes: int, end: int) -> bytes:
    """The record that lies in `buffer` from `at` to `end`."""
    fixed = buffer[at : at + 12] + buffer[at + 16 : at + 42]
    extra = at + 46 + name_bytes
    if extra_bytes < _TIMES_END or not buffer.startswith(_TIMES, extra):
        return fixed + buffer[at + 46 : end]
    name = buffer[at + 46 : extra + _TIMES_AT]
    return fixed + name + b"\0\0\0\0" + buffer[extra + _TIMES_END : end]


def lengths(record: bytes) -> tuple[int, int]:
    """Bytes of the packed content, and of the name."""
    packed, name = _LENGTHS.unpack_from(record)
    return packed, name


def is_repeated(header: bytes, record: bytes) -> bool:
    """Whether a local header says the same: flags, method, CRC, sizes and name."""
    return (
        header[6:10] == record[8:12]
        and header[14:28] == record[12:26]
        and header[30:] == record[_NAME : _NAME + len(header) - 30]
    )


def to_member(record: bytes, pos: int, path: str, size: int, end: int) -> Member:
    """The entry of a record, as far as reading its content needs it."""
    method, crc, packed = _CONTENT.unpack_from(record)
    return Member(pos, path, EntryKind.FILE, 0, size, 0, None, packed, method, crc, None, end)
