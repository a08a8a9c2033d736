"""One entry of an archive, as both kinds of reader give it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

SMALL_BYTES = 256 * 1024  # a file up to here is read in one piece
SPECIAL_BITS = 0o7000


class EntryKind(StrEnum):
    """What an entry is. The values are stored in the index."""

    FILE = "file"
    DIR = "dir"
    LINK = "link"


class Member(NamedTuple):
    """One entry, as the archive's headers tell it, or as the roll gives it back.

    pos:     where it lies, unique in its archive: of the local header in a zip, else of the
             content (in the unpacked stream of a tgz).
    path:    from a reader: the decoded name as it stands; from the roll: a clean path.
    target:  of a link, else None.
    packed:  bytes that the content takes in the archive; method, crc: of a zip.
    record:  of a zip's entry that may be known again by it: see index.py, column whole.
    end, old_digest, old_raw, old_mtime_ns: known to the roll only: where the next entry begins,
             and digests and time of a file of the old release that looks the same, else None.
    """

    pos: int
    path: str
    kind: EntryKind
    mode: int
    size: int
    mtime_ns: int
    target: str | None = None
    packed: int = 0
    method: int = 0
    crc: int = 0
    record: bytes | None = None
    end: int = 0
    old_digest: bytes | None = None
    old_raw: bytes | None = None
    old_mtime_ns: int | None = None
