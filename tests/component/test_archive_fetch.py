"""Bringing a bundle from this host into the store: a copy, or a folder packed."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from pathlib import Path

import pytest

from agent.archive import fetch_copy, folder, unpack
from agent.model.errors import AgentError, Code, Interrupted, TransientError
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests.archives import APPSPEC, MTIME

LIMITS = Limits(free_bytes=0, free_inodes=0)
BIG = os.urandom(3 * 2**20 + 17)


def ignore(_done: int, _total: int) -> None:
    pass


def copy(source: Path, target: Path, *, limit: int = 2**40, progress: object = ignore) -> object:
    return fetch_copy.copy_hashed(
        source, target, limit_bytes=limit, cancel=Cancel(), progress=progress
    )


def test_copy_gives_digest_and_size(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BIG)
    seen: list[tuple[int, int]] = []
    before = os.umask(0)
    try:
        copied = copy(source, target, progress=lambda *numbers: seen.append(numbers))
    finally:
        os.umask(before)
    assert copied == (hashlib.sha256(BIG).hexdigest(), len(BIG))
    assert target.read_bytes() == BIG
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert seen[-1] == (len(BIG), len(BIG))


def test_copy_does_not_write_over_or_through_anything(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    source.write_bytes(b"x")
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "file").write_text("keep me")
    for name in ("link", "file", "none/file"):
        with pytest.raises(AgentError):
            copy(source, tmp_path / name)
    assert not other.exists()
    assert (tmp_path / "file").read_text() == "keep me"


def test_copy_refuses_what_is_too_big_or_no_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    with pytest.raises(AgentError, match="bigger than 99 bytes") as caught:
        copy(source, tmp_path / "target", limit=99)
    assert caught.value.code is Code.BUNDLE_REFUSED
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(AgentError, match="fifo"):
        copy(tmp_path / "fifo", tmp_path / "target")
    with pytest.raises(AgentError) as caught:
        copy(tmp_path / "none", tmp_path / "target")
    assert caught.value.code is Code.BUNDLE_MISSING
    assert not (tmp_path / "target").exists()


def append(source: Path) -> None:
    with source.open("ab") as file:
        file.write(b"more")


def rewrite(source: Path) -> None:
    with source.open("r+b") as file:
        file.write(b"!")


def shorten(source: Path) -> None:
    os.truncate(source, 2**20)


def replace_by_rename(source: Path) -> None:
    beside = source.with_name("beside")
    beside.write_bytes(BIG)
    beside.rename(source)


@pytest.mark.parametrize("change", [append, rewrite, shorten, replace_by_rename, Path.unlink])
def test_a_source_that_changes_is_told(change: object, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    os.utime(source, (MTIME, MTIME))
    pending = [change]

    def on_progress(_done: int, _total: int) -> None:
        while pending:
            pending.pop()(source)  # type: ignore[operator]

    with pytest.raises(TransientError) as caught:
        copy(source, tmp_path / "target", progress=on_progress)
    assert caught.value.code is Code.BUNDLE_CHANGED
    assert not (tmp_path / "target").exists()


def test_copy_stops_when_cancelled(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    cancel = Cancel()
    with pytest.raises(Interrupted):
        fetch_copy.copy_hashed(
            source,
            tmp_path / "target",
            limit_bytes=2**40,
            cancel=cancel,
            progress=lambda _done, _total: cancel.set("enough"),
        )
    assert not (tmp_path / "target").exists()


# -- a folder as a bundle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "b/é").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "appspec.yml").write_bytes(APPSPEC)
    (root / "b/run").write_text("#!/bin/sh\n")
    (root / "b/run").chmod(0o755)
    (root / "b/big").write_bytes(BIG)
    (root / "b/é" / ("n" * 150)).write_text("long")
    (root / "link").symlink_to("b/run")
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (MTIME, MTIME))
    return root


def pack(
    source: Path, out: Path, *, limits: Limits = LIMITS, progress: object = ignore
) -> fetch_copy.Copied:
    return folder.pack_folder(source, out, limits=limits, cancel=Cancel(), progress=progress)


def test_a_packed_folder_unpacks_to_the_same(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    copied = pack(source, out)
    assert copied == (hashlib.sha256(out.read_bytes()).hexdigest(), out.stat().st_size)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    unpack.unpack(
        out,
        tree=tmp_path / "tree",
        index=tmp_path / "index",
        limits=LIMITS,
        cancel=Cancel(),
        progress=ignore,
    )
    for path in source.rglob("*"):
        copy_path = tmp_path / "tree" / path.relative_to(source)
        assert copy_path.lstat().st_mode == path.lstat().st_mode
        if path.is_file():
            assert copy_path.read_bytes() == path.read_bytes()
            assert copy_path.stat().st_mtime == path.stat().st_mtime
    assert len(list(source.rglob("*"))) == len(list((tmp_path / "tree").rglob("*")))


def test_other_tools_read_it(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as file:
        entries = file.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {(entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, "")}


def test_the_same_content_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "one")
    os.utime(source / "empty", (1, 1))
    os.utime(source, (1, 1))
    (source / "link").unlink()
    (source / "link").symlink_to("b/run")
    assert pack(source, tmp_path / "two") == first
    (source / "appspec.yml").chmod(0o600)
    assert pack(source, tmp_path / "three") != first


def make_fifo(source: Path) -> None:
    os.mkfifo(source / "b/evil")


def make_bad_name(source: Path) -> None:
    (source / "b/evil\nname").touch()


def make_undecodable(source: Path) -> None:
    with open(os.fsencode(source) + b"/evil\xff", "w"):
        pass


def make_deep(source: Path) -> None:
    (source / "/".join(["evil"] * 70)).mkdir(parents=True)


@pytest.mark.parametrize("make", [make_fifo, make_bad_name, make_undecodable, make_deep])
def test_what_cannot_be_packed_is_named(make: object, source: Path, tmp_path: Path) -> None:
    make(source)  # type: ignore[operator]
    with pytest.raises(AgentError, match="evil") as caught:
        pack(source, tmp_path / "out")
    assert caught.value.code is Code.BUNDLE_REFUSED
    assert not (tmp_path / "out").exists()


def test_a_folder_beyond_the_limits(source: Path, tmp_path: Path) -> None:
    for limits in (Limits(members=3), Limits(bundle_bytes=2**20)):
        with pytest.raises(AgentError) as caught:
            pack(source, tmp_path / "out", limits=limits)
        assert caught.value.code is Code.BUNDLE_REFUSED
        assert "agent.yaml" in caught.value.remedy


@pytest.mark.parametrize("name", ["b/big", "b/new"])
def test_a_folder_that_changes_is_told(name: str, source: Path, tmp_path: Path) -> None:
    def on_progress(_done: int, _total: int) -> None:
        with (source / name).open("ab") as file:
            file.write(b"more")

    with pytest.raises(TransientError) as caught:
        pack(source, tmp_path / "out", progress=on_progress)
    assert caught.value.code is Code.BUNDLE_CHANGED
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        pack(tmp_path / "none", tmp_path / "out")
    assert caught.value.code is Code.BUNDLE_MISSING
