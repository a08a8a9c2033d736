"""The roll of an archive's entries: each is admitted by the rules, then all are judged together.

Rules of one entry: its name, depth, and what the limits leave. Rules of all: no path twice (also
not in another Unicode form), no file that is another's folder, links that lead to something
inside. Source: PEP 706 and the unpacking rules in docs/bundles.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from agent.archive import names
from agent.archive.draft import KNOWN_TWICE, OVERLAPS, TAKE_OVER
from agent.archive.gunzip import RATIO_FROM_BYTES
from agent.archive.maker import Wish
from agent.archive.member import SPECIAL_BITS, EntryKind, Member
from agent.archive.refusals import refused, refused_bundle, shown
from agent.archive.zip_content import LOCAL_BYTES
from agent.model.errors import AgentError
from agent.model.settings import Limits

_FILE_BITS = 0o755  # kept of a mode; never writable by others, no setuid, setgid, sticky
_OWNER_BITS = 0o600
_LINK_HOPS = 40  # the kernel's own limit


class _Tally:
    """How many entries something happened to, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""

    def __str__(self) -> str:
        return f"{self.count} entries ({self._first} first)"

    def add(self, path: str) -> None:
        self._first = self._first or shown(path)
        self.count += 1


class Roll:
    """Takes in entries, refuses what breaks a rule. bytes, files: of content, as headers say."""

    def __init__(self, db: sqlite3.Connection, limits: Limits, bundle_bytes: int) -> None:
        self._db = db
        self._limits = limits
        self._bundle_bytes = bundle_bytes
        self._folder = ""
        self._last = ""
        self._tops: set[str] = set()
        self._skipped = _Tally()
        self._special = _Tally()
        self.entries = 0
        self.files = 0
        self.bytes = 0
        self.strip = 0

    def add(self, members: Iterable[Member]) -> None:
        """Admit members and write them down; raises AgentError (BUNDLE_REFUSED)."""
        self.note(member for member in map(self.admit, members) if member)

    def note(self, members: Iterable[Member]) -> None:
        """Write down what admit() gave."""
        try:
            self._db.executemany(
                "INSERT INTO scratch.members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (member[:2] + member[3:11] for member in members),
            )
        except sqlite3.IntegrityError as error:
            raise refused(self._last, "lies in the same place as another entry") from error

    def admit(self, member: Member) -> Member | None:
        """A member as it will be written; None for folders, and for macOS's extras."""
        path = self._last = names.clean(member.path)
        self._count_entries(1)
        if not path:
            return None
        if names.is_skipped(path):
            self._skipped.add(path)
            return None
        self._check_depth(path)
        folder = path if member.kind is EntryKind.DIR else path.rpartition("/")[0]
        if folder != self._folder:
            self._note_folder(folder)
        elif not folder and len(self._tops) < 2:
            self._tops.add("")
        if member.kind is EntryKind.DIR:
            return None
        if not path.isascii():
            self._note_form(path)
        mode = self._admit_file(member) if member.kind is EntryKind.FILE else member.mode
        if path == member.path and mode == member.mode:
            return member
        return member._replace(path=path, mode=mode)

    def admit_known(self, files: Sequence[Wish]) -> None:
        """Admit files whose entries were admitted before, headers and all: limits are left."""
        self._count_entries(len(files))
        self._count_files(len(files), sum(file[3] for file in files))
        for folder, name, _, _, _, _ in files:
            if folder != self._folder:
                self._check_depth(f"{folder}/{name}")
                self._note_folder(folder)
            elif not folder and len(self._tops) < 2:
                self._tops.add("")
            if not (name.isascii() and folder.isascii()):
                self._note_form(f"{folder}/{name}" if folder else name)

    def judge(self) -> None:
        """Apply the rules that need all entries, and see whether one folder wraps them all.

        Sets strip: the length of the prefix that every path loses, 0 if none.
        """
        if not self._tops:
            raise refused_bundle("it is empty", "Build the bundle again.")
        _take_over(self._db)
        _refuse_duplicates(self._db)
        clash = self._db.execute(
            "SELECT path FROM scratch.folders JOIN listed USING (path) LIMIT 1"
        ).fetchone()
        if clash:
            raise refused(clash[0], "is a file or link, and a folder for other entries")
        self.strip = self._wrapping()
        links = "SELECT path, target FROM scratch.members WHERE target IS NOT NULL ORDER BY path"
        for path, target in self._db.execute(links):
            self._check_link(path, target)

    def refuse_overlaps(self) -> None:
        """Refuse an entry of a zip that reaches into the next, whether known from before or not."""
        for query in OVERLAPS:
            if found := self._db.execute(query, {"head": LOCAL_BYTES}).fetchone():
                raise refused(found[0], "overlaps with the entry behind it")

    def folders(self) -> Iterator[str]:
        """Every folder, parents first."""
        for (path,) in self._db.execute("SELECT path FROM scratch.folders ORDER BY path"):
            yield path

    def links(self) -> Iterator[tuple[int, str, str]]:
        """Every link: position, path, target."""
        yield from self._db.execute(
            "SELECT pos, path, target FROM scratch.members WHERE target IS NOT NULL ORDER BY path"
        )

    def warnings(self) -> tuple[str, ...]:
        """What was left out or changed without refusing the bundle, a sentence each."""
        found = []
        if self._skipped.count:
            found.append(f"{self._skipped} of macOS left out")
        if self._special.count:
            found.append(f"setuid, setgid or sticky bit dropped from {self._special}")
        return tuple(found)

    def _admit_file(self, member: Member) -> int:
        """Count one file against the limits; its mode as it will be on disk."""
        self._count_files(1, member.size)
        if member.mode & SPECIAL_BITS:
            self._special.add(member.path)
        return member.mode & _FILE_BITS | _OWNER_BITS

    def _count_entries(self, count: int) -> None:
        self.entries += count
        if self.entries > self._limits.members:
            raise over_limit(f"more than {self._limits.members} entries", "members")

    def _count_files(self, count: int, size: int) -> None:
        self.files += count
        self.bytes += size
        if self.bytes > self._limits.unpacked_bytes:
            raise over_limit(
                f"more than {self._limits.unpacked_bytes} bytes of content", "unpacked"
            )
        if self.bytes > max(RATIO_FROM_BYTES, self._bundle_bytes * self._limits.ratio):
            raise over_limit(f"more than {self._limits.ratio} times the bundle's size", "ratio")

    def _check_depth(self, path: str) -> None:
        if path.count("/") >= self._limits.depth:
            remedy = "Pack it less deep, or raise limits.depth in agent.yaml."
            raise refused(path, f"lies deeper than {self._limits.depth} folders", remedy)

    def _note_folder(self, folder: str) -> None:
        """Write down a folder and those above it, up to the first that is known."""
        self._folder = folder
        if len(self._tops) < 2:
            self._tops.add(folder.split("/", 1)[0])
        while folder:
            found = self._db.execute("INSERT OR IGNORE INTO scratch.folders VALUES (?)", (folder,))
            if not found.rowcount:
                return
            if not folder.isascii():
                self._note_form(folder)
            folder = names.parent(folder)

    def _note_form(self, path: str) -> None:
        """Refuse a path that is equal to another when spelled in the same way."""
        try:
            self._db.execute("INSERT INTO scratch.forms VALUES (?)", (names.folded(path),))
        except sqlite3.IntegrityError as error:
            raise _twice(path) from error

    def _wrapping(self) -> int:
        """The length of "top/" if that folder holds everything, and an appspec directly in it.

        AWS's agent strips such a folder; archives of a repository's commit have one.
        """
        if len(self._tops) != 1 or self._tops == {""}:
            return 0
        prefix = f"{next(iter(self._tops))}/"
        found = self._db.execute(
            "SELECT 1 FROM listed WHERE substr(path, 1, :n) = :prefix AND"
            " instr(substr(path, :n + 1), '/') = 0 AND instr(substr(path, :n + 1), 'appspec')",
            {"n": len(prefix), "prefix": prefix},
        ).fetchone()
        return len(prefix) if found else 0

    def _check_link(self, path: str, target: str) -> None:
        """A link must lead, over at most 40 others, to an entry of the bundle."""
        prefix, at = path[: self.strip], path[self.strip :]
        for _ in range(_LINK_HOPS):
            at = names.link_path(at, target)
            if not at or self._is_folder(prefix + at):
                return
            found = self._db.execute(
                "SELECT target FROM listed WHERE path = ?", (prefix + at,)
            ).fetchone()
            if not found:
                remedy = "Put what it points to into the bundle, or make the link in a hook."
                raise refused(path, f"is a link to {shown(target)}, which is missing", remedy)
            if found[0] is None:
                return
            target = found[0]
        raise refused(path, "is a link that leads in a circle")

    def _is_folder(self, path: str) -> bool:
        found = self._db.execute("SELECT 1 FROM scratch.folders WHERE path = ?", (path,))
        return found.fetchone() is not None


def _take_over(db: sqlite3.Connection) -> None:
    """Have the entries known from before in the index, where the rules look at them, too."""
    try:
        db.execute(TAKE_OVER)
    except sqlite3.IntegrityError as error:
        path = db.execute(KNOWN_TWICE).fetchone()[0]
        raise _twice(path) from error


def _refuse_duplicates(db: sqlite3.Connection) -> None:
    try:
        db.execute("CREATE UNIQUE INDEX scratch.by_path ON members (path)")
    except sqlite3.IntegrityError as error:
        query = "SELECT path FROM scratch.members GROUP BY path HAVING count(*) > 1 LIMIT 1"
        raise _twice(db.execute(query).fetchone()[0]) from error
    query = "SELECT path FROM scratch.members JOIN entries USING (path) LIMIT 1"
    if found := db.execute(query).fetchone():
        raise _twice(found[0])


def over_limit(cause: str, limit: str) -> AgentError:
    """The error for a bundle that is bigger than it may be."""
    return refused_bundle(
        f"it holds {cause}", f"Raise limits.{limit} in agent.yaml if this bundle is meant to be so."
    )


def _twice(path: str) -> AgentError:
    return refused(path, "is there twice, maybe in two spellings of one name")
