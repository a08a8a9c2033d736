"""The index of a release: what was unpacked, a row for every path, in an SQLite file.

Others join with it by SQL; the columns of `entries` are a contract.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from agent.archive.member import EntryKind
from agent.archive.refusals import from_sqlite_error
from agent.model.errors import AgentError, Code

# path: relative, / between folders, the root itself not listed, every folder listed.
# kind: file, dir, link. mode: permission bits. size: of a file; of a link's target; else 0.
# mtime_ns: of a file, else 0; one that the release before had with this content keeps its time.
# digest: sha256 of the content or of the target, empty for a dir. raw: sha256 over the compressed
# bytes of a file from a zip, else NULL. target: of a link.
# pos, head, whole: of a small file that may be known again in another archive, else NULL.
# Of a tgz: where its content lies in the tar, bytes of headers in front of it, sha256 over content
# and then headers, but for the time in them. Of a zip, which is where raw is not NULL: where its
# local header lies, bytes that this and the packed content take at least, its record in the
# central directory but for times and place (zip_record.without_times()).
ENTRIES = """entries (
  path TEXT PRIMARY KEY, kind TEXT NOT NULL, mode INTEGER NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, digest BLOB NOT NULL, raw BLOB, target TEXT,
  pos INTEGER, head INTEGER, whole BLOB) WITHOUT ROWID"""
BY_POS = "entries_by_pos ON entries (pos) WHERE pos IS NOT NULL"
LEVEL = 3  # PRAGMA user_version; another one is for an index whose entries passed other rules

_SELECT = "SELECT path, kind, mode, size, mtime_ns, digest, raw, target FROM entries"


class Entry(NamedTuple):
    """One row: a path of a release as it was unpacked."""

    path: str
    kind: str
    mode: int
    size: int
    mtime_ns: int
    digest: bytes
    raw: bytes | None
    target: str | None


class Totals(NamedTuple):
    """Counts over an index; bytes are those of the files' content."""

    files: int
    folders: int
    links: int
    bytes: int


class Index:
    """An index opened for reading. May be used from any thread, by one at a time."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AgentError(
                f"cannot read the index {path}: it does not exist",
                code=Code.RELEASE_DAMAGED,
                remedy="Deploy the revision again: agentctl retry",
            )
        self._path = path
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA cache_size = -1000")
            self._db.execute(f"{_SELECT} LIMIT 1").fetchall()
            self.level: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            self._db.close()
            raise from_sqlite_error(error, f"read the index {path}") from error

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, ordered by path, read as it is asked for."""
        try:
            for row in self._db.execute(f"{_SELECT} ORDER BY path"):
                yield Entry._make(row)
        except sqlite3.Error as error:
            raise from_sqlite_error(error, f"read the index {self._path}") from error

    def lookup(self, path: str) -> Entry | None:
        """The entry of a path, if it has one."""
        try:
            row = self._db.execute(f"{_SELECT} WHERE path = ?", (path,)).fetchone()
        except sqlite3.Error as error:
            raise from_sqlite_error(error, f"read the index {self._path}") from error
        return Entry._make(row) if row else None

    def totals(self) -> Totals:
        """How much it lists."""
        query = "SELECT kind, count(*), sum(size) FROM entries GROUP BY kind"
        try:
            rows = {kind: (count, size) for kind, count, size in self._db.execute(query)}
        except sqlite3.Error as error:
            raise from_sqlite_error(error, f"read the index {self._path}") from error
        files, size = rows.get(EntryKind.FILE, (0, 0))
        folders, links = rows.get(EntryKind.DIR, (0, 0))[0], rows.get(EntryKind.LINK, (0, 0))[0]
        return Totals(files, folders, links, size)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
