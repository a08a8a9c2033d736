"""What survives a crash: deployments, steps, what is current, quarantine and hold.

SQLite with a write-ahead log and full sync (https://www.sqlite.org/pragma.html#pragma_synchronous):
a change of state is one transaction, and it is on the disk when the call returns. All methods
block; the daemon calls them in threads.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.model.deployment import Current, Deployment, Outcome, Revision, Status, Step, Trigger
from agent.model.errors import AgentError, Code, Conflict, NotFound
from agent.store import installed, records, schema


@dataclass(frozen=True, slots=True)
class Hold:
    """A person stopped deployments. until: Unix seconds, None without an end."""

    reason: str
    by: str
    since: float
    until: float | None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A revision that this host refuses since it was undone here."""

    application: str
    digest: str
    version: str
    since: float
    cause: str
    deployment_id: str


class State:
    """The state file. One writer at a time; readers share its lock.

    original: the file that errors name, where path is a copy of it.
    """

    def __init__(self, path: Path, *, original: Path | None = None) -> None:
        self._path = original or path
        self._lock = threading.RLock()
        self._connection = _open(path, self._path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is done in it, or nothing; for this room. Raises AgentError."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise translate(error, self._path) from error
                raise

    def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """What a query gives; for this room. Raises AgentError."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise translate(error, self._path) from error

    # deployments

    def save(self, deployment: Deployment, steps: Iterable[Step] = ()) -> None:
        """Save a deployment and those of its steps that changed, in one transaction."""
        with self.transaction() as connection:
            _write(connection, deployment, steps)

    def request(self, deployment: Deployment) -> list[str]:
        """Add a waiting deployment; ids of waiting ones of its application that it replaces."""
        with self.transaction() as connection:
            waiting = [
                row["id"]
                for row in connection.execute(
                    "SELECT id FROM deployments WHERE application = ? AND status = ?",
                    (deployment.revision.application, Status.PENDING),
                )
            ]
            if waiting and deployment.trigger is Trigger.ENVIRONMENT:
                # whatever waits reads the keys, too
                raise Conflict(
                    f"cannot change the environment now: {waiting[0]} waits", code=Code.CONFLICT
                )
            connection.executemany(
                "UPDATE deployments SET status = ?, outcome = ?, ended_at = ? WHERE id = ?",
                [(Status.DONE, Outcome.SUPERSEDED, time.time(), each) for each in waiting],
            )
            _write(connection, deployment, ())
        return waiting

    def deployment(self, deployment_id: str) -> Deployment:
        """One deployment; raises NotFound."""
        rows = self.rows(
            f"SELECT {records.DEPLOYMENT_COLUMNS} FROM deployments WHERE id = ?",  # noqa: S608
            (deployment_id,),
        )
        if not rows:
            raise NotFound(
                f"cannot find deployment {deployment_id!r}: this host has no record of it",
                code=Code.NOT_FOUND,
                remedy="List them with: agentctl history",
            )
        return records.parse_deployment(rows[0])

    def deployments(self, application: str | None = None, limit: int = 1000) -> list[Deployment]:
        """Deployments, newest first."""
        where = "" if application is None else "WHERE application = ?"
        values = () if application is None else (application,)
        rows = self.rows(
            f"SELECT {records.DEPLOYMENT_COLUMNS} FROM deployments {where}"  # noqa: S608
            " ORDER BY seq DESC LIMIT ?",
            (*values, limit),
        )
        return [records.parse_deployment(row) for row in rows]

    def unfinished(self) -> list[Deployment]:
        """Deployments that have not ended, oldest first; the running one comes first."""
        rows = self.rows(
            f"SELECT {records.DEPLOYMENT_COLUMNS} FROM deployments"  # noqa: S608
            " WHERE status IN (?, ?, ?) ORDER BY status = ?, seq",
            (Status.PENDING, Status.DOING, Status.UNDOING, Status.PENDING),
        )
        return [records.parse_deployment(row) for row in rows]

    def steps(self, deployment_id: str) -> list[Step]:
        """The steps of a deployment that were begun, in the order of their start."""
        rows = self.rows(
            f"SELECT {records.STEP_COLUMNS} FROM steps"  # noqa: S608
            " WHERE deployment_id = ? ORDER BY started_at",
            (deployment_id,),
        )
        return [records.parse_step(row) for row in rows]

    def forget(self, deployment_ids: Iterable[str]) -> None:
        """Remove the records of ended deployments."""
        with self.transaction() as connection:
            connection.executemany(
                "DELETE FROM deployments WHERE id = ?", [(each,) for each in deployment_ids]
            )

    def attempts(self, application: str, identity: str) -> list[Deployment]:
        """The deployments of one revision as its source identifies it, newest first."""
        rows = self.rows(
            f"SELECT {records.DEPLOYMENT_COLUMNS} FROM deployments"  # noqa: S608
            " WHERE application = ? AND identity = ? ORDER BY seq DESC",
            (application, identity),
        )
        return [records.parse_deployment(row) for row in rows]

    def highest_serial(self, application: str) -> int:
        """The highest serial of any revision of the application that was asked for here."""
        rows = self.rows(
            "SELECT max(serial) AS serial FROM deployments WHERE application = ?", (application,)
        )
        return int(rows[0]["serial"] or 0)

    # what is current

    def applications(self) -> list[str]:
        """Every application with a deployment or a committed revision, by name."""
        rows = self.rows(
            "SELECT application FROM applications UNION SELECT application FROM deployments"
            " ORDER BY application"
        )
        return [row["application"] for row in rows]

    def committed(self) -> list[str]:
        """Every application with a committed revision, by name."""
        rows = self.rows("SELECT application FROM applications ORDER BY application")
        return [row["application"] for row in rows]

    def current(self, application: str) -> Current | None:
        """The committed revision of an application."""
        return self._committed(application, "current")

    def previous(self, application: str) -> Current | None:
        """The revision committed before the current one."""
        return self._committed(application, "previous")

    def _committed(self, application: str, column: str) -> Current | None:
        rows = self.rows(
            f"SELECT {column} AS text FROM applications WHERE application = ?",  # noqa: S608
            (application,),
        )
        return records.parse_current(rows[0]["text"]) if rows else None

    def commit(self, deployment: Deployment, steps: Iterable[Step], plan: Path) -> None:
        """Make the deployment's revision current: the point after which nothing is undone.

        plan: the deployment's plan file; its files become the application's installed ones.
        """
        application = deployment.revision.application
        with self._lock:
            installed.attach(self._connection, plan)
            try:
                with self.transaction() as connection:
                    old = self.current(application)
                    new = Current(
                        revision=deployment.revision,
                        release=deployment.release,
                        deployment_id=deployment.id,
                        committed_at=time.time(),
                    )
                    kept = self.previous(application)
                    if old is not None and not _is_same(old.revision, new.revision):
                        kept = old
                    connection.execute(
                        "INSERT OR REPLACE INTO applications VALUES (?, ?, ?)",
                        (
                            application,
                            records.current_text(new),
                            None if kept is None else records.current_text(kept),
                        ),
                    )
                    installed.commit_files(connection, application)
                    _lift(connection, application, deployment.revision.digest)
                    _write(connection, deployment, steps)
            finally:
                installed.detach(self._connection)

    # quarantine and hold

    def quarantine(self, entry: Quarantined) -> None:
        """Refuse a revision on this host from now on."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
                (
                    entry.application,
                    entry.digest,
                    entry.version,
                    entry.since,
                    entry.cause,
                    entry.deployment_id,
                ),
            )

    def quarantined(self, application: str) -> list[Quarantined]:
        """The refused revisions of an application, newest first."""
        rows = self.rows(
            "SELECT * FROM quarantine WHERE application = ? ORDER BY since DESC", (application,)
        )
        return [Quarantined(**dict(row)) for row in rows]

    def lift(self, application: str, digest: str) -> None:
        """Let a quarantined revision be tried again."""
        with self.transaction() as connection:
            _lift(connection, application, digest)

    def hold(self) -> Hold | None:
        """The hold in force, None when there is none or it has expired."""
        rows = self.rows("SELECT reason, by, since, until FROM hold")
        hold = Hold(**dict(rows[0])) if rows else None
        if hold is not None and hold.until is not None and hold.until <= time.time():
            return None
        return hold

    def save_hold(self, hold: Hold | None) -> None:
        """Begin, replace or (None) end the hold."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM hold")
            if hold is not None:
                connection.execute(
                    "INSERT INTO hold VALUES (1, ?, ?, ?, ?)",
                    (hold.reason, hold.by, hold.since, hold.until),
                )


def _is_same(one: Revision, other: Revision) -> bool:
    """Whether they are one revision, perhaps deployed twice: no rollback leads to the other."""
    return (one.digest, one.version) == (other.digest, other.version)


def _write(connection: sqlite3.Connection, deployment: Deployment, steps: Iterable[Step]) -> None:
    row = records.deployment_row(deployment)
    marks = ", ".join("?" * len(row))
    updates = ", ".join(f"{c} = excluded.{c}" for c in records.DEPLOYMENT_COLUMNS.split(", ")[1:])
    connection.execute(
        f"INSERT INTO deployments ({records.DEPLOYMENT_COLUMNS}) VALUES ({marks})"  # noqa: S608
        f" ON CONFLICT (id) DO UPDATE SET {updates}",
        row,
    )
    connection.executemany(
        "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [records.step_row(deployment.id, step) for step in steps],
    )


def _lift(connection: sqlite3.Connection, application: str, digest: str) -> None:
    connection.execute(
        "DELETE FROM quarantine WHERE application = ? AND digest = ?", (application, digest)
    )


def _open(path: Path, named: Path) -> sqlite3.Connection:
    """Open the file, make it when it is missing, and bring it to this level.

    Raises AgentError: STATE_DAMAGED (the file is left as it is), STATE_TOO_NEW.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA cache_size = -1000")  # KiB
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        _migrate(connection, named)
    except sqlite3.Error as error:
        raise translate(error, named) from error
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    level = connection.execute("PRAGMA user_version").fetchone()[0]
    known = len(schema.MIGRATIONS)
    if level > known:
        raise AgentError(
            f"cannot read {path}: its format level {level} is newer than this agent's {known}",
            code=Code.STATE_TOO_NEW,
            remedy="Install the newer deploy-agent again, or restore the state from before it",
        )
    for number in range(level, known):
        connection.execute("BEGIN IMMEDIATE")
        schema.MIGRATIONS[number](connection)
        connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")


def translate(error: sqlite3.Error, path: Path) -> AgentError:
    """An error of SQLite's about the file in our words."""
    # sqlite_errorname is set on errors that SQLite itself raised (Python 3.11)
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return AgentError(
            f"cannot write {path}: {error}",
            code=Code.DISK_FULL,
            remedy=f"Free space on the file system of {path.parent}",
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return AgentError(
            f"cannot use {path}: another process has locked it",
            code=Code.STATE_IN_USE,
            remedy=f"End the program that has it open (fuser -v {path}), then try again",
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return AgentError(
            f"cannot open {path}: {error}",
            code=Code.CONFIG_INVALID,
            remedy=f"Make {path.parent} a folder that the agent's user may write to",
        )
    return AgentError(
        f"cannot read {path}: {error}",
        code=Code.STATE_DAMAGED,
        details=("the file was left as it is",),
        remedy=f"Restore it from a backup, or keep it aside (mv {path} {path}.damaged) and start"
        " again: the agent then knows no current revision, so deploy each application once",
    )
