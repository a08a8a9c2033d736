"""The plan of a deployment: one SQLite file that is printed, carried out, and undone from."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from agent.model.errors import AgentError, Code, Interrupted
from agent.system import durable
from agent.system.cancel import Cancel

NAME = "plan.db"

_LEVEL = 2
_READ = (1, _LEVEL)  # 1: every file that is wanted has a row, and nothing is committed.installed
_CACHE_KIB = 1024  # of each file that is open; SQLite's own 2 MiB would add up
_STEPS_BETWEEN_CHECKS = 200_000
_MUCH = 4
IS_CHANGED = "action <> 'keep'"  # in a query's WHERE it lets SQLite use the index `changed`

_SCHEMA = """
CREATE TABLE actions (
    path TEXT PRIMARY KEY,
    action TEXT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT,
    how TEXT,
    mode INTEGER, uid INTEGER, gid INTEGER, size INTEGER, mtime_ns INTEGER,
    digest BLOB, target TEXT, acl TEXT, context TEXT, rule INTEGER,
    ours INTEGER NOT NULL,
    intact INTEGER NOT NULL,
    was TEXT,
    old_kind TEXT, old_mode INTEGER, old_uid INTEGER, old_gid INTEGER, old_size INTEGER,
    old_mtime_ns INTEGER, old_digest BLOB, old_source TEXT, old_context TEXT
) WITHOUT ROWID;
CREATE TABLE seen (
    path TEXT PRIMARY KEY, changed_ns INTEGER NOT NULL, mode INTEGER, uid INTEGER, gid INTEGER,
    is_touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE folders (
    path TEXT PRIMARY KEY, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, is_own INTEGER NOT NULL, access_acl BLOB, default_acl BLOB
) WITHOUT ROWID;
CREATE TABLE places (volume TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE copied (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE copied_below (first TEXT NOT NULL, beyond TEXT NOT NULL);
CREATE TABLE acls (
    acl TEXT, kind TEXT, access_acl BLOB, default_acl BLOB, PRIMARY KEY (acl, kind)
) WITHOUT ROWID;
CREATE TABLE findings (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, owner TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE tally (
    mount TEXT, action TEXT, kind TEXT, how TEXT, count INTEGER, bytes INTEGER, blocks INTEGER
);
CREATE TABLE space (
    mount TEXT PRIMARY KEY, needed_bytes INTEGER NOT NULL, free_bytes INTEGER NOT NULL,
    needed_inodes INTEGER NOT NULL, free_inodes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE words (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
"""actions: one row for every path that this revision wants, or the one before it had, but for files
  that are wanted and are there just as they were committed (see unchanged).
  path     where it is to be, without any symlink on the way
  action   add replace keep adopt retain remove: files and links
           mkdir replace keep merge rmdir: folders (merge: it is there and not ours)
           conflict: it cannot be done
  kind     file, dir, link
  source   where it lies in the release; target: what a link says
  how      link (a hard link of the release's file will do) or copy
  mode...  as wanted; NULL for a folder that the appspec's permissions do not name
  rule     the number of the appspec's permission that applies
  ours     0: not committed by this application; 1: committed, and wanted just so; 2: committed,
           and wanted differently; 3: committed, and not wanted any more; -1: another application's
  intact   it was as committed when the plan was made; undo puts it back even if a hook took it
  was      what is there now: file, dir, link, other; NULL: nothing
  old_...  as committed, where that differs from what is wanted; of an adopted file, its mtime_ns
seen: the folders that the plan looked into, when their entries changed last (0: just then, -1:
  there was none), their permissions, and whether something in them will change.
folders: folders that existed, and in which something changes; as they were. is_own: their
  permissions change, too, or they are removed.
copied, copied_below: sources, and bounds of sources, that are never linked.
places: by volume, the folder that takes what is replaced and removed there.
acls: an ACL in words, and as the kernel keeps it.
tally: how many paths of each sort there are on each mount, when the plan was made; of what is
  kept only how many in all.
findings: kind is conflict, problem or warning.
changed: an index of actions, where it pays (see index_changes).
words: what the plan was made from, and how far it was carried out (started, undoing, undone)."""

# with the columns of actions, of which those that are left out here are NULL
_UNCHANGED = """
CREATE TEMP VIEW unchanged AS
SELECT path, 'keep' AS action, kind, source, NULL AS how, mode, uid, gid, size, mtime_ns, digest,
    1 AS ours, 1 AS intact
FROM committed.installed i
WHERE application = (SELECT value FROM words WHERE name = 'application') AND kind = 'file'
    AND NOT EXISTS (SELECT 1 FROM actions a WHERE a.path = i.path)
"""
_PLANNED = """
CREATE TEMP VIEW planned AS
SELECT * FROM actions UNION ALL
SELECT path, action, kind, source, how, mode, uid, gid, size, mtime_ns, digest,
    NULL, NULL, NULL, NULL, ours, intact, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM unchanged
"""
_ALL_PLANNED = "CREATE TEMP VIEW planned AS SELECT * FROM actions"
"""unchanged: the files without a row. planned: all paths, those that are unchanged, too."""


def below(folder: str) -> tuple[str, str]:
    """The bounds (first, beyond) between which the paths below a folder are sorted."""
    base = folder.rstrip("/")
    return f"{base}/", f"{base}0"  # "0" is the character that follows "/"


@contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """SQLite's errors as ours, while `doing` ("make", "read") the plan in `path`."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise Interrupted("stopped", code=Code.ABORTED) from error
        raise AgentError(
            f"cannot {doing} the plan {path}: {error}",
            code=Code.DISK_FULL if is_disk_full(error) else Code.INSTALL_FAILED,
            remedy=f"Look at the free space of {path.parent}, then run: agentctl retry",
        ) from error


def index_changes(plan: sqlite3.Connection) -> None:
    """After the comparison: let what looks for changes pass over what is kept.

    Every query of the install would read all of the plan, of which little changes as a rule. Where
    much does, reading it all is quicker.
    """
    changed = plan.execute(f"SELECT count(*) FROM actions WHERE {IS_CHANGED}").fetchone()[0]  # noqa: S608
    if changed * _MUCH < plan.execute("SELECT count(*) FROM actions").fetchone()[0]:
        plan.execute(f"CREATE INDEX changed ON actions (path) WHERE {IS_CHANGED}")


def is_disk_full(error: sqlite3.Error) -> bool:
    """Whether there was no room; SQLite tells it as a failed write, too."""
    name = getattr(error, "sqlite_errorname", "")  # set on errors that SQLite itself raised
    return bool(name.startswith(("SQLITE_FULL", "SQLITE_IOERR")))


@contextmanager
def making(path: Path, cancel: Cancel) -> Iterator[sqlite3.Connection]:
    """A new plan file: it gets its name when it is complete and on the disk."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with translated(path, "make"), closing(_connect(partial, "rwc", cancel)) as plan:
        # nothing reads it before it is complete: it needs no journal and no sync of its own
        plan.execute("PRAGMA journal_mode = OFF")
        plan.execute("PRAGMA synchronous = OFF")
        plan.executescript(_SCHEMA)
        plan.execute(f"PRAGMA user_version = {_LEVEL}")
        plan.execute("BEGIN")
        yield plan
        plan.execute("COMMIT")
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    durable.sync_folder(path.parent)


@contextmanager
def opened(path: Path, cancel: Cancel | None = None) -> Iterator[sqlite3.Connection]:
    """A plan file that exists; each change is on the disk when its transaction ends."""
    with translated(path, "read"), closing(_connect(path, "rw", cancel)) as plan:
        plan.execute("PRAGMA synchronous = FULL")
        level = plan.execute("PRAGMA user_version").fetchone()[0]
        if level not in _READ:
            raise AgentError(
                f"cannot read the plan {path}: its format level is {level}, not {_LEVEL}",
                code=Code.INSTALL_FAILED,
                remedy="Install the deploy-agent that made it again",
            )
        committed = load_words(plan).get("committed")
        if committed:
            plan.execute("ATTACH DATABASE ? AS committed", (f"{Path(committed).as_uri()}?mode=ro",))
            _make_views(plan)
        else:
            plan.execute(_ALL_PLANNED)
        yield plan


def note_committed(plan: sqlite3.Connection) -> None:
    """Of a plan that is made: have what is attached as committed attached whenever it is opened."""
    files = {name: file for _, name, file in plan.execute("PRAGMA database_list")}
    save_words(plan, committed=files["committed"])
    _make_views(plan)


def _make_views(plan: sqlite3.Connection) -> None:
    plan.execute(_UNCHANGED)
    plan.execute(_PLANNED)


def _connect(path: Path, mode: str, cancel: Cancel | None) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    plan = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    os.chmod(path, 0o600)
    plan.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    if cancel is not None:
        plan.set_progress_handler(lambda: int(cancel.is_set()), _STEPS_BETWEEN_CHECKS)
    return plan


@contextmanager
def transaction(plan: sqlite3.Connection) -> Iterator[None]:
    """What is changed within is on the disk as a whole, or not at all."""
    plan.execute("BEGIN IMMEDIATE")
    try:
        yield
        plan.execute("COMMIT")
    except BaseException:
        if plan.in_transaction:
            plan.execute("ROLLBACK")
        raise


def save_words(plan: sqlite3.Connection, **words: str) -> None:
    """Save words by name, inside a transaction; an empty one is removed."""
    for name, value in words.items():
        if value:
            plan.execute("INSERT OR REPLACE INTO words VALUES (?, ?)", (name, value))
        else:
            plan.execute("DELETE FROM words WHERE name = ?", (name,))


def load_words(plan: sqlite3.Connection) -> dict[str, str]:
    """Every saved word by its name."""
    return dict(plan.execute("SELECT name, value FROM words"))


def add_finding(
    plan: sqlite3.Connection, kind: str, text: str, *, path: str = "", owner: str = ""
) -> None:
    """Add a conflict, a problem or a warning. Names on a host need not be UTF-8: text is shown."""
    text = text.encode(errors="backslashreplace").decode()
    plan.execute(
        "INSERT INTO findings (kind, path, owner, text) VALUES (?, ?, ?, ?)",
        (kind, path, owner, text),
    )
