"""Hostile zips for a host that has a release by the same hand: what is known there may lie."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace

from agent.model.errors import Code
from tests.archives import APPSPEC, ZipEntry, local_part, make_zip

SPEC = ZipEntry(b"appspec.yml", APPSPEC)
FILES = [ZipEntry(b"app/%02d" % number, b"%d" % number * number) for number in range(40)]
KNOWN = [SPEC, *FILES]
_LINK = 0o120777


def twins() -> tuple[bytes, bytes]:
    """Two contents of one size and one CRC."""
    found: dict[int, bytes] = {}
    number = 0
    while True:
        content = hashlib.sha256(b"%d" % number).digest()
        other = found.setdefault(zlib.crc32(content), content)
        if other != content:
            return other, content
        number += 1


def offset_of(number: int) -> int:
    """Where an entry of KNOWN lies."""
    return sum(len(local_part(entry)) for entry in KNOWN[:number])


def changed(number: int, **fields: object) -> list[ZipEntry]:
    """KNOWN with one entry that is another."""
    entries = list(KNOWN)
    entries[number] = replace(entries[number], **fields)  # type: ignore[arg-type]
    return entries


def local(number: int, **fields: object) -> list[ZipEntry]:
    """KNOWN with one entry whose local header alone is another."""
    return changed(number, local=replace(KNOWN[number], **fields))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Again:
    """A zip to refuse where another was unpacked before; late: only when contents are read."""

    name: str
    zip: bytes
    code: Code = Code.BUNDLE_REFUSED
    is_late: bool = False
    old: bytes = make_zip(*KNOWN)


_END = offset_of(len(KNOWN))


def _reaching() -> bytes:
    """A new entry in front of known ones, with a part of the next local header in its content."""
    content = b"evil content"
    zipped = make_zip(ZipEntry(b"evil", content, method=0), *KNOWN)
    told = struct.pack("<3L", zlib.crc32(content + b"PK\3\4"), *[len(content) + 4] * 2)
    right = struct.pack("<3L", zlib.crc32(content), *[len(content)] * 2)
    return zipped.replace(right, told)


def _begun_later(number: int, *entries: ZipEntry) -> bytes:
    """A zip with an entry whose local header says that it has an extra field, of four bytes."""
    right = local_part(entries[number])
    return make_zip(*entries).replace(right, right[:28] + b"\4" + right[29:])


_HEADS = [SPEC, ZipEntry(b"heads", b"PK\3\4" * 5, method=0), ZipEntry(b"next", b"x")]

AGAIN = [
    Again("offset beyond the content", make_zip(*changed(20, offset=_END))),
    Again("offset far away", make_zip(*changed(20, offset=0xFFFFFFFE))),
    Again("offset in a zip64 field that is not there", make_zip(*changed(20, offset=0xFFFFFFFF)),
          Code.BUNDLE_DAMAGED),
    Again("the last one lies outside", make_zip(*changed(40, offset=_END - 40))),
    Again("two known ones at one place", make_zip(*changed(20, offset=offset_of(19)))),
    Again("two known ones far from each other at one place",
          make_zip(*changed(30, offset=offset_of(3)))),
    Again("a known one within another", make_zip(*changed(30, offset=offset_of(20) + 1))),
    Again("a known one at the place of another, which moved",
          make_zip(*[replace(entry, offset=offset_of(50 - number)) if number in (20, 30) else entry
                     for number, entry in enumerate(KNOWN)]), is_late=True),
    Again("all known ones one byte further on",
          make_zip(*(replace(entry, offset=offset_of(number) + 1)
                     for number, entry in enumerate(KNOWN[:-1])), KNOWN[-1]),
          Code.BUNDLE_DAMAGED, is_late=True),
    Again("a new one at the place of a known one",
          make_zip(*KNOWN, replace(KNOWN[20], name=b"evil", offset=offset_of(20)))),
    Again("a new one that reaches into a known one",
          make_zip(*KNOWN, replace(KNOWN[20], name=b"evil", offset=offset_of(20) - 1))),
    Again("a new one within a known one",
          make_zip(*KNOWN, ZipEntry(b"evil", offset=offset_of(20) + 4))),
    Again("a new one over several known ones",
          make_zip(*KNOWN, ZipEntry(b"evil", b"x" * 3000, method=0, offset=offset_of(20) - 1))),
    Again("a new one over all known ones",
          make_zip(*KNOWN, ZipEntry(b"evil", b"x" * (_END - 60), method=0, offset=0))),
    Again("a new one that goes on into a known one", _reaching(), is_late=True),
    Again("a link at the place of a known one",
          make_zip(*KNOWN, ZipEntry(b"evil", KNOWN[20].content, mode=_LINK, method=0,
                                    offset=offset_of(20)))),
    Again("a known one, twice", make_zip(*KNOWN, KNOWN[20])),
    Again("a known one, twice with one content",
          make_zip(*KNOWN, replace(KNOWN[20], offset=offset_of(20)))),
    Again("all of it twice", make_zip(*KNOWN, *KNOWN)),
    Again("two more listed than there are", make_zip(*KNOWN, count=len(KNOWN) + 2),
          Code.BUNDLE_DAMAGED),
    Again("one less listed than there are", make_zip(*KNOWN, count=len(KNOWN) - 1),
          Code.BUNDLE_DAMAGED),
    Again("another name in its local header", make_zip(*local(20, name=b"app/xx")), is_late=True),
    Again("a longer name in its local header", make_zip(*local(20, name=b"app/199")),
          is_late=True),
    Again("another method in its local header",
          make_zip(*local(20, method=0, packed=b"x", size=1)), is_late=True),
    Again("another CRC in its local header", make_zip(*local(20, crc=1)), is_late=True),
    Again("another size in its local header", make_zip(*local(20, size=1)), is_late=True),
    Again("encrypted in its local header", make_zip(*local(20, flags=1)), is_late=True),
    Again("content goes on into the next one by an extra field that is longer",
          _begun_later(20, *KNOWN), is_late=True),
    Again("content goes on into a new one by an extra field that is longer",
          _begun_later(20, *KNOWN[:21], ZipEntry(b"new", b"x"), *KNOWN[21:]), is_late=True),
    Again("content that is the same where it goes on into the next one",
          _begun_later(1, *_HEADS), is_late=True, old=make_zip(*_HEADS)),
    Again("no local header", make_zip(*KNOWN).replace(
        local_part(KNOWN[20]), b"PK\3\5" + local_part(KNOWN[20])[4:]),
        Code.BUNDLE_DAMAGED, is_late=True),
    Again("another content that has not its CRC",
          make_zip(*KNOWN).replace(local_part(KNOWN[20]), local_part(KNOWN[20])[:-4] + b"\xff" * 4),
          Code.BUNDLE_DAMAGED, is_late=True),
]  # fmt: skip
