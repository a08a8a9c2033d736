"""Ways through folders: the order of SQLite, and no way through a link."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.files import walk


def test_the_order_is_that_of_sqlite(tmp_path: Path) -> None:
    for name in ("a/b", "a/b.c/d", "a/b-x", "a/ü", "a.txt", "a/b0", "z", "a/é/日"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.name != name:
            path.mkdir(exist_ok=True)
    (tmp_path / "a/b/file").write_text("")
    (tmp_path / "a/link").symlink_to("b")
    walked = list(walk.walk_in_order(str(tmp_path)))
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE paths (path TEXT)")
        everything = [(str(path),) for path in tmp_path.rglob("*")]
        database.executemany("INSERT INTO paths VALUES (?)", everything)
        rows = database.execute("SELECT path FROM paths ORDER BY path").fetchall()
    assert walked == [path for (path,) in rows]
    assert len(walked) == len(everything)


def test_folders_are_opened_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with closing(walk.Folders()) as folders:
        assert folders.open(f"{tmp_path}/real/inner") == folders.open(f"{tmp_path}/real/inner")
        with pytest.raises(NotADirectoryError):
            folders.open(f"{tmp_path}/link/inner")
        with pytest.raises(FileNotFoundError):
            folders.open(f"{tmp_path}/real/none")
        assert folders.open(f"{tmp_path}/real")
        assert folders.open("/")
