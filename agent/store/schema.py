"""The tables of state.db and their migrations, one level at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from agent.store import installed

_LEVEL_1 = """
CREATE TABLE deployments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    application TEXT NOT NULL,
    deployment_group TEXT NOT NULL,
    version TEXT NOT NULL,
    bundle TEXT NOT NULL,
    digest TEXT NOT NULL,
    identity TEXT NOT NULL,
    serial INTEGER NOT NULL,
    release TEXT NOT NULL,
    "trigger" TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    starts INTEGER NOT NULL,
    step TEXT,
    outcome TEXT,
    failure TEXT,
    previous_version TEXT NOT NULL
);
CREATE INDEX deployments_by_application ON deployments (application, seq);
CREATE TABLE steps (
    deployment_id TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    seconds REAL NOT NULL,
    undo_seconds REAL NOT NULL,
    note TEXT NOT NULL,
    failure TEXT,
    PRIMARY KEY (deployment_id, name)
) WITHOUT ROWID;
CREATE TABLE applications (
    application TEXT PRIMARY KEY,
    current TEXT NOT NULL,
    previous TEXT
) WITHOUT ROWID;
CREATE TABLE quarantine (
    application TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    since REAL NOT NULL,
    cause TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    PRIMARY KEY (application, digest)
) WITHOUT ROWID;
CREATE TABLE hold (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL
);
"""


_LEVEL_2 = """
ALTER TABLE deployments ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN built_from TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN signed_by TEXT NOT NULL DEFAULT '';
CREATE TABLE serials (
    application TEXT NOT NULL,
    deployment_group TEXT NOT NULL,
    serial INTEGER NOT NULL,
    PRIMARY KEY (application, deployment_group)
) WITHOUT ROWID;
"""


_LEVEL_3 = """
CREATE TABLE drains (
    application TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL
) WITHOUT ROWID;
"""


def _create_level_1(connection: sqlite3.Connection) -> None:
    _run(connection, _LEVEL_1 + installed.SCHEMA)


def _add_origin(connection: sqlite3.Connection) -> None:
    """What manifests tell of a revision, and the highest serial that each group has seen."""
    _run(connection, _LEVEL_2)


def _add_drains(connection: sqlite3.Connection) -> None:
    """What people keep out of Consul's traffic."""
    _run(connection, _LEVEL_3)


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create_level_1,
    _add_origin,
    _add_drains,
)
"""MIGRATIONS[n] takes a file of level n to level n + 1, inside one transaction."""
