"""Inflating, and CRC-32: by ISA-L where it is there, which takes half the time; else by zlib.

Only here is known which: PyPI's isal, which is Debian's python3-isal. It is loaded with the first
archive. What is said of a bundle does not depend on it, so its differences end here:

- Of gzip headers it takes such with flags that RFC 1952 reserves, and refuses good ones that come
  in two parts. So zlib takes every member whose header is not plain, and there in one part.
- Bytes behind the end of a deflate stream may be missing in its unused_data, up to 7 of them, if
  it had been given no more. So it is given more, or the last byte alone.
- It takes all input and still has output, up to 64 KiB, that comes with the next call.
- Its errors are no zlib.error, and have other words.

One is left: it can read some streams in which zlib refuses a table of codes. The checksum decides
then whether the content is right.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, cast

_RAW = -zlib.MAX_WBITS
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_FIXED = 10  # bytes of each header; what its flags tell of follows
_EXTRA, _NAME, _COMMENT = 0x04, 0x08, 0x10
_PLAIN_FLAGS = 0x01 | _EXTRA | _NAME | _COMMENT
_BEHIND = bytes(16)  # more than a bit buffer holds


class CannotInflate(Exception):
    """It is not what it should be; the text says why, in the words of the library."""


class Inflater(Protocol):
    """What both libraries call a decompressobj."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    @property
    def unused_data(self) -> bytes:
        """What followed it."""

    @property
    def unconsumed_tail(self) -> bytes:
        """What is to be given again, as there was no room for more."""

    def decompress(self, packed: bytes, most: int, /) -> bytes:
        """The next bytes, `most` of them or fewer."""


class Library(NamedTuple):
    """What is used of one."""

    name: str
    decompressobj: Callable[[int], Inflater]
    crc32: Callable[[bytes, int], int]
    error: type[Exception]


_ZLIB = Library("zlib", zlib.decompressobj, zlib.crc32, zlib.error)


@functools.cache
def library() -> Library:
    """The one that is there."""
    try:
        from isal import isal_zlib
    except ImportError:
        return _ZLIB
    error = cast("type[Exception]", isal_zlib.error)
    return Library("isal", isal_zlib.decompressobj, isal_zlib.crc32, error)


def gzip_member(begin: bytes) -> Inflater:
    """For a member of a gzip file, header and checksums included. begin: the first part of it."""
    chosen = library() if _has_plain_header(begin) else _ZLIB
    return chosen.decompressobj(_GZIP)


def _has_plain_header(begin: bytes) -> bool:
    """Whether `begin` holds a whole header, without a checksum of its own."""
    if len(begin) < _GZIP_FIXED or not begin.startswith(_GZIP_MAGIC):
        return False
    flags, at = begin[3], _GZIP_FIXED
    if flags & ~_PLAIN_FLAGS:
        return False
    if flags & _EXTRA:
        at += 2 + int.from_bytes(begin[at : at + 2], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            at = begin.find(b"\0", at) + 1 or len(begin)
    return at < len(begin)


def decompress(inflater: Inflater, packed: bytes, most: int) -> bytes:
    """The next bytes of a stream; raises CannotInflate."""
    try:
        return inflater.decompress(packed, most)
    except (zlib.error, library().error) as error:
        raise CannotInflate(str(error)) from error


def whole(packed: bytes, most: int) -> tuple[bytes, bool]:
    """At most `most` bytes of a deflate stream; whether it ends, and right where `packed` does.

    What ISA-L cannot read is judged by zlib. Raises CannotInflate.
    """
    chosen = library()
    if chosen is not _ZLIB:
        inflater = chosen.decompressobj(_RAW)
        try:
            content = inflater.decompress(packed + _BEHIND, most)
        except chosen.error:
            content = b""
        if inflater.eof and inflater.unused_data == _BEHIND:
            return content, True
    inflater = zlib.decompressobj(_RAW)
    try:
        content = inflater.decompress(packed, most)
    except zlib.error as error:
        raise CannotInflate(str(error)) from error
    return content, inflater.eof and not inflater.unused_data


def pieces(packed: Iterator[bytes], size: int, most: int) -> Iterator[bytes]:
    """What a deflate stream inflates to, in pieces of at most `most` bytes.

    size: of all its packed pieces. Raises CannotInflate, also if it ends before or behind them.
    """
    inflater = library().decompressobj(_RAW)
    for part in _last_byte_alone(packed, size):
        if inflater.eof:
            raise CannotInflate("it ends too early")
        waiting = part
        while not inflater.eof:
            piece = decompress(inflater, waiting, most)
            if not piece:
                break
            yield piece
            waiting = inflater.unconsumed_tail
    if not inflater.eof or inflater.unused_data:
        raise CannotInflate("it does not end")


def _last_byte_alone(packed: Iterator[bytes], size: int) -> Iterator[bytes]:
    left = size
    for piece in packed:
        left -= len(piece)
        if left:
            yield piece
        else:
            yield piece[:-1]
            yield piece[-1:]
