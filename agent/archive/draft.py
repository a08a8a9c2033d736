"""An index while it is made, with the scratch tables that decide what may be written.

SQLite and not Python objects: a million entries must not cost a million objects. The scratch file
is unlinked as soon as it is open, the index gets its name when it is complete.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.archive.index import BY_POS, ENTRIES, LEVEL
from agent.archive.member import Member
from agent.archive.refusals import from_sqlite_error
from agent.archive.zip_content import LOCAL_BYTES
from agent.archive.zip_record import LEFT_OUT

BATCH = 128

Written = tuple[int, int, bytes, bytes | None, int | None, bytes | None]
"""Position, mtime_ns, digest of the content (or target), raw, head and whole: see index.py."""
Expected = tuple[str, int, int, int, int, int, bytes]
"""A file as the old archive had it: path, mode, size, mtime_ns, pos, head and whole."""
Placed = tuple[int, int, str, int, int, int, bytes, bytes]
"""A known file of a zip: place of its record, pos, path, mode, size, mtime_ns, raw and whole."""

_SCRATCH = """
CREATE TABLE scratch.members (
  pos INTEGER PRIMARY KEY, path TEXT, mode INTEGER, size INTEGER, mtime_ns INTEGER,
  target TEXT, packed INTEGER, method INTEGER, crc INTEGER, record BLOB);
CREATE TABLE scratch.folders (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE scratch.forms (form TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE scratch.written (
  pos INTEGER PRIMARY KEY, mtime_ns INTEGER, digest BLOB, raw BLOB, head INTEGER, whole BLOB);
CREATE TABLE scratch.known (begin INTEGER, first INTEGER, last INTEGER, record INTEGER);
CREATE INDEX scratch.known_by_begin ON known (begin);
CREATE TEMP VIEW listed AS
SELECT path, target FROM scratch.members UNION ALL SELECT path, target FROM main.entries;
"""

# the same file in the old release, as far as headers tell: content is compared later. Its time
# does not count: a build stamps all files anew, and what has the same content keeps its time
_OLD = """LEFT JOIN old.entries o ON o.path = substr(m.path, :strip + 1) AND o.kind = 'file'
  AND o.size = m.size AND o.mode = m.mode"""

_ROWS = f"""
SELECT m.pos, m.path, 'file', m.mode, m.size, m.mtime_ns, NULL, m.packed, m.method, m.crc, NULL,
  coalesce((SELECT n.pos FROM scratch.members n WHERE n.pos > m.pos ORDER BY n.pos LIMIT 1), :end),
  o.digest, o.raw, o.mtime_ns
FROM scratch.members m {_OLD}
WHERE m.pos > :after AND m.target IS NULL ORDER BY m.pos LIMIT :count"""  # noqa: S608 - our own text

_NEEDED = f"""
SELECT coalesce(sum((m.size + :block - 1) / :block * :block), 0), count(*)
FROM scratch.members m {_OLD} WHERE o.path IS NULL"""  # noqa: S608 - our own text
_COUNTS = "SELECT (SELECT count(*) FROM listed), (SELECT count(*) FROM scratch.folders)"
_ROW_BYTES = 400  # of index and scratch, for an entry

# in a wrapping folder every path is another than the one in the headers: nothing is known again
_STRIP_KNOWN = """
UPDATE entries SET path = substr(path, :strip + 1), pos = NULL, head = NULL, whole = NULL"""

_FINISH_MEMBERS = f"""
INSERT INTO entries
SELECT substr(m.path, :strip + 1), iif(m.target IS NULL, 'file', 'link'), m.mode,
  iif(m.target IS NULL, m.size, length(CAST(m.target AS BLOB))),
  w.mtime_ns, w.digest, w.raw, m.target,
  iif(:strip OR coalesce(w.head, m.record) IS NULL, NULL, m.pos),
  iif(:strip, NULL, iif(m.record IS NULL, w.head, {LOCAL_BYTES} + m.packed)),
  iif(:strip, NULL, coalesce(w.whole, m.record))
FROM scratch.members m LEFT JOIN scratch.written w USING (pos)
ORDER BY m.path"""  # noqa: S608 - our own text

_FINISH_FOLDERS = """
INSERT INTO entries
SELECT substr(path, :strip + 1), 'dir', 493, 0, 0, x'', NULL, NULL, NULL, NULL, NULL
FROM scratch.folders WHERE length(path) > :strip"""

_IS_OF_ZIP = "SELECT raw IS NOT NULL FROM old.entries WHERE pos IS NOT NULL LIMIT 1"
_EXPECTED = """
SELECT path, mode, size, mtime_ns, pos, head, whole FROM old.entries WHERE pos > ? ORDER BY pos"""
_STRETCHES = "SELECT begin - first, first, last, record FROM scratch.known ORDER BY begin"
_STRETCH = """
SELECT pos + :shift, path, mode, size, mtime_ns, raw, whole FROM old.entries
WHERE pos BETWEEN :first AND :last ORDER BY pos"""
_TAKE_BACK = "INSERT INTO scratch.members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OLD_POS = "SELECT pos FROM old.entries WHERE path = ?"
_KNOWN = "scratch.known k JOIN old.entries o ON o.pos BETWEEN k.first AND k.last"
KNOWN_TWICE = f"SELECT o.path FROM {_KNOWN} GROUP BY o.path HAVING count(*) > 1"  # noqa: S608
TAKE_OVER = f"""
INSERT INTO entries
SELECT o.path, o.kind, o.mode, o.size, o.mtime_ns, o.digest, o.raw, o.target,
  o.pos + k.begin - k.first, o.head, o.whole
FROM {_KNOWN}"""  # noqa: S608 - our own text


# entries of a zip that reach into the next one: read ones; known ones, of which within a stretch
# none does, as none did in the old zip; read ones and known ones, of which the last one that
# begins in front of an entry's end reaches furthest
OVERLAPS = (
    """
SELECT path FROM scratch.members m WHERE pos + :head + packed > (
  SELECT n.pos FROM scratch.members n WHERE n.pos > m.pos ORDER BY n.pos LIMIT 1) LIMIT 1""",
    """
SELECT o.path FROM scratch.known k JOIN old.entries o ON o.pos = k.last
WHERE o.pos + k.begin - k.first + o.head > (
  SELECT n.begin FROM scratch.known n WHERE (n.begin, n.rowid) > (k.begin, k.rowid)
  ORDER BY n.begin, n.rowid LIMIT 1) LIMIT 1""",
    """
SELECT m.path FROM scratch.members m JOIN scratch.known k ON k.rowid = (
  SELECT n.rowid FROM scratch.known n WHERE n.begin < m.pos + :head + m.packed
  ORDER BY n.begin DESC LIMIT 1)
JOIN old.entries o ON o.pos = (
  SELECT p.pos FROM old.entries p
  WHERE p.pos <= min(k.last, m.pos + :head + m.packed - 1 - k.begin + k.first)
  ORDER BY p.pos DESC LIMIT 1)
WHERE o.pos + k.begin - k.first + o.head > m.pos LIMIT 1""",
)


class Draft:
    """The tables.

    main.entries becomes the index; scratch.* is what the roll knows; old.entries is the index of
    the release whose files may be linked, empty if there is none.
    """

    def __init__(self, index: Path, old: Path | None = None) -> None:
        self._index = index
        self.has_old = old is not None
        self._reading: dict[str, sqlite3.Cursor] = {}
        self._partial = index.with_name(f"{index.name}.partial")
        scratch = index.with_name(f"{index.name}.scratch")
        self._partial.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)
        self.db = sqlite3.connect(self._partial, uri=True, isolation_level=None)
        try:
            self._attach(scratch, old)
        except sqlite3.Error as error:
            self.db.close()
            self._partial.unlink(missing_ok=True)
            scratch.unlink(missing_ok=True)
            raise from_sqlite_error(error, f"make the index {index}") from error

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close; without finish() nothing is left."""
        self._end_reading()
        self.db.close()
        self._partial.unlink(missing_ok=True)

    def rows_after(self, pos: int, strip: int, end: int, count: int = BATCH) -> list[Member]:
        """The next files of the roll, with what the old release has in their place."""
        values = {"after": pos, "strip": strip, "end": end, "count": count}
        return list(map(Member._make, self.db.execute(_ROWS, values)))

    def needed(self, strip: int, block: int) -> tuple[int, int]:
        """Bytes of blocks, and inodes, that writing takes where nothing old can be linked."""
        size, files = self.db.execute(_NEEDED, {"strip": strip, "block": block}).fetchone()
        members, folders = self.db.execute(_COUNTS).fetchone()
        return size + folders * block + members * _ROW_BYTES, files + folders

    def expected_after(self, pos: int) -> Iterator[Expected]:
        """What followed in the old archive behind an entry at `pos`; ends what it gave before."""
        return self._read_on(_EXPECTED, (pos,))

    def has_expected(self, *, is_zip: bool) -> bool:
        """Whether expected_after() has any files, and they are of an archive of this kind."""
        row = self.db.execute(_IS_OF_ZIP).fetchone()
        return row is not None and bool(row[0]) is is_zip

    def placed_files(self) -> Iterator[Placed]:
        """The known files of a zip, in the order in which they lie in it."""
        for shift, first, last, record in self._read_on(_STRETCHES, ()):
            values = {"shift": shift, "first": first, "last": last}
            for row in self._read_on(_STRETCH, values):
                yield record, *row
                record += len(row[-1]) + LEFT_OUT

    def _read_on(self, query: str, values: tuple[int, ...] | dict[str, int]) -> sqlite3.Cursor:
        """A query that is read little by little; ends the same one from before."""
        if query in self._reading:
            self._reading[query].close()
        self._reading[query] = self.db.execute(query, values)
        return self._reading[query]

    def _end_reading(self) -> None:
        """A query that is not at its end would keep the index locked after it is closed."""
        while self._reading:
            self._reading.popitem()[1].close()

    def old_pos(self, path: str) -> int | None:
        """Where the old archive had the entry of a path."""
        row = self.db.execute(_OLD_POS, (path,)).fetchone()
        return row[0] if row else None

    def note_known(self, first: int, last: int, shift: int, record: int) -> None:
        """The old archive's entries from one to another are in this one, `shift` bytes further on.

        Roll.judge() takes them over. record: of a zip, where the record of the first one lies.
        """
        values = (first + shift, first, last, record)
        self.db.execute("INSERT INTO scratch.known VALUES (?, ?, ?, ?)", values)

    def take_back(self, member: Member) -> None:
        """What was taken over as known is another file after all, and in the roll as such."""
        self.db.execute("DELETE FROM entries WHERE path = ?", (member.path,))
        self.db.execute(_TAKE_BACK, member[:2] + member[3:11])

    def note_written(self, rows: Iterable[Written]) -> None:
        """What was written; and what was linked, unless it was taken over as known."""
        self.db.executemany("INSERT INTO scratch.written VALUES (?, ?, ?, ?, ?, ?)", rows)

    def fill(self, strip: int) -> None:
        """Fill the index from the roll and what was written."""
        if strip:
            self.db.execute(_STRIP_KNOWN, {"strip": strip})
        self.db.execute(_FINISH_MEMBERS, {"strip": strip})
        self.db.execute(_FINISH_FOLDERS, {"strip": strip})
        self.db.execute(f"CREATE INDEX main.{BY_POS}")
        self.db.execute(f"PRAGMA main.user_version = {LEVEL}")

    def finish(self) -> None:
        """Give the index its name. The caller syncs the file system."""
        self._end_reading()
        self.db.execute("COMMIT")
        self.db.close()
        os.replace(self._partial, self._index)

    def _attach(self, scratch: Path, old: Path | None) -> None:
        self.db.execute("ATTACH ? AS scratch", (str(scratch),))
        name = f"{old.absolute().as_uri()}?mode=ro&immutable=1" if old else ":memory:"
        self.db.execute("ATTACH ? AS old", (name,))
        for schema in ("main", "scratch"):
            self.db.execute(f"PRAGMA {schema}.journal_mode = OFF")
            self.db.execute(f"PRAGMA {schema}.synchronous = OFF")
            self.db.execute(f"PRAGMA {schema}.locking_mode = EXCLUSIVE")
        for schema in ("main", "scratch", "old"):
            self.db.execute(f"PRAGMA {schema}.cache_size = -1000")
        if not old:
            self.db.execute(f"CREATE TABLE old.{ENTRIES}")
            self.db.execute(f"CREATE INDEX old.{BY_POS}")
        self.db.execute(f"CREATE TABLE main.{ENTRIES}")
        self.db.executescript(_SCRATCH)
        scratch.unlink()
        self.db.execute("BEGIN")
