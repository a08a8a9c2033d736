"""What the store knows of installed files after a commit."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.model.errors import AgentError
from agent.store import installed
from tests.file_host import MTIME_NS, File, FileHost, Link


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


def test_files_and_their_owner(host: FileHost) -> None:
    app = host.host / "app"
    release = host.release("v1", {"d/a": File("a", 0o755), "l": Link("d")})
    host.deploy("d-1", release)
    found = {file.path: file for file in host.installed.of("app")}
    assert list(found) == [str(app), str(app / "d"), str(app / "d/a"), str(app / "l")]
    file = found[str(app / "d/a")]
    assert (file.kind, file.size, file.mtime_ns, file.mode) == ("file", 1, MTIME_NS, 0o755)
    assert (file.uid, file.gid) == (os.geteuid(), os.getegid())
    assert found[str(app / "l")].kind == "link"
    assert host.installed.owner(str(app / "d/a")) == "app"
    assert host.installed.owner(str(app / "other")) is None
    assert not list(host.installed.of("other"))


def test_what_is_gone_is_nobodys(host: FileHost) -> None:
    one = host.release("v1", {"a": "a", "b": "b"})
    host.deploy("d-1", one)
    host.deploy("d-2", host.release("v2", {"b": "b"}), current=one)
    assert host.installed.owner(str(host.host / "app/a")) is None
    assert host.installed.owner(str(host.host / "app/b")) == "app"


def test_a_commit_changes_only_rows_that_differ(host: FileHost) -> None:
    one = host.release("v1", {f"f{n}": "1" for n in range(20)})
    host.deploy("d-1", one)
    files = {f"f{n}": "1" for n in range(20)} | {"f3": "2"}
    deployed = host.deployment("d-2", host.release("v2", files), current=one)
    deployed.install()
    database = host.layout.database
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        installed.attach(connection, deployed.path)
        connection.execute("BEGIN")
        installed.commit_files(connection, "app")
        assert connection.total_changes == 1
        connection.execute("COMMIT")
        installed.detach(connection)
        installed.detach(connection)


def test_a_file_that_moved_within_the_bundle_is_found_by_a_later_undo(host: FileHost) -> None:
    target = host.host / "app"
    one = host.release("v1", {"old/a": "a"})
    host.deploy("d-1", one, files=(("old", target),))
    two = host.release("v2", {"new/a": "a"})
    host.deploy("d-2", two, files=(("new", target),), current=one)
    three = host.release("v3", {"new/b": "b"})
    deployed = host.deployment("d-3", three, files=(("new", target),), current=two)
    (target / "a").unlink()  # by a hook
    deployed.install()
    deployed.undo()
    assert (target / "a").read_text() == "a"


def test_a_commit_without_a_plan_is_refused(host: FileHost) -> None:
    with closing(sqlite3.connect(host.layout.database)) as connection, pytest.raises(AgentError):
        installed.attach(connection, host.base / "none.db")
    assert not (host.base / "none.db").exists()
