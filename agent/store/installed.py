"""Which committed revision put what on this host: the table `installed` of state.db.

It is read by the next plan, which touches only what differs from it, and it is written once
per deployment, in the transaction that commits it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.files import planfile
from agent.model.errors import AgentError, Code
from agent.model.installed import InstalledFile

SCHEMA = """
CREATE TABLE installed (
    path TEXT PRIMARY KEY,
    application TEXT NOT NULL,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER,
    uid INTEGER,
    gid INTEGER,
    digest BLOB NOT NULL,
    source TEXT,
    acl TEXT,
    context TEXT
) WITHOUT ROWID;
CREATE INDEX installed_by_application ON installed (application);
"""
"""mode, uid, gid: NULL for a folder whose permissions the appspec leaves as they came.
source: where it lies in the release. acl, context: as the appspec's permissions wanted them."""


class InstalledFiles:
    """The committed files, read only. Any thread may ask; all methods block."""

    def __init__(self, database: Path) -> None:
        self._uri = f"{database.absolute().as_uri()}?mode=ro"

    def attach(self, connection: sqlite3.Connection) -> None:
        """Make the table readable as committed.installed on a connection opened with uri=True."""
        connection.execute("ATTACH DATABASE ? AS committed", (self._uri,))

    def of(self, application: str) -> Iterator[InstalledFile]:
        """Every file of one application, ordered by path."""
        connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
        try:
            for row in connection.execute(
                "SELECT path, application, kind, size, mtime_ns, coalesce(mode, 493),"
                " coalesce(uid, 0), coalesce(gid, 0), digest FROM installed"
                " WHERE application = ? ORDER BY path",
                (application,),
            ):
                yield InstalledFile(*row)
        finally:
            connection.close()

    def owner(self, path: str) -> str | None:
        """The application that owns a path."""
        connection = sqlite3.connect(self._uri, uri=True)
        try:
            row = connection.execute(
                "SELECT application FROM installed WHERE path = ?", (path,)
            ).fetchone()
            return None if row is None else str(row[0])
        finally:
            connection.close()


def attach(connection: sqlite3.Connection, plan_path: Path) -> None:
    """Attach a deployment's plan file for commit_files; not inside a transaction.

    Raises AgentError when there is no such file: it would be made, empty.
    """
    if not plan_path.exists():
        raise AgentError(
            f"cannot commit: the plan {plan_path} is missing",
            code=Code.INSTALL_FAILED,
            remedy="Run: agentctl retry",
        )
    connection.execute("ATTACH DATABASE ? AS plan", (str(plan_path),))


def detach(connection: sqlite3.Connection) -> None:
    """The reverse of attach, after the transaction; nothing when nothing is attached."""
    if any(row[1] == "plan" for row in connection.execute("PRAGMA database_list")):
        connection.execute("DETACH DATABASE plan")


def commit_files(connection: sqlite3.Connection, application: str) -> None:
    """Make what the attached plan installed the application's files; touches changed rows only."""
    connection.execute(
        "DELETE FROM installed WHERE application = ? AND path IN"  # noqa: S608 - our own text
        f" (SELECT path FROM plan.actions WHERE {planfile.IS_CHANGED}"
        " AND action IN ('remove', 'rmdir'))",
        (application,),
    )
    connection.execute(
        "INSERT OR REPLACE INTO installed"  # noqa: S608 - our own text
        " SELECT path, ?, kind, coalesce(size, 0),"
        " coalesce(CASE action WHEN 'adopt' THEN old_mtime_ns END, mtime_ns, 0),"
        " mode, uid, gid, coalesce(digest, x''), source, acl, context"
        f" FROM plan.actions WHERE {planfile.IS_CHANGED}"
        " AND action IN ('add', 'replace', 'adopt', 'mkdir')",
        (application,),
    )
    connection.execute(
        "UPDATE installed SET source ="
        " (SELECT a.source FROM plan.actions a WHERE a.path = installed.path)"
        " WHERE application = ? AND path IN"
        " (SELECT path FROM plan.actions WHERE action = 'keep' AND old_source IS NOT NULL)",
        (application,),
    )
