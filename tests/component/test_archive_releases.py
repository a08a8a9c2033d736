"""A release is checked against its index, put back from its bundle, and removed."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.archive import releases, unpack
from agent.archive.index import Index
from agent.model.errors import AgentError, Code, Interrupted
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import archives
from tests.archives import APPSPEC, ZipEntry, make_zip
from tests.trees import fingerprint

LIMITS = Limits(free_bytes=0, free_inodes=0)
FILES = {
    "appspec.yml": APPSPEC,
    "d/a": b"a" * 100,
    "d/big": bytes(1_000_000),
    "d/e/f": b"f",
    "z": b"",
}


def zip_with_link(files: dict[str, bytes]) -> bytes:
    entries = [ZipEntry(name.encode(), content, 0o100755) for name, content in files.items()]
    top = next(iter(files)).removesuffix("appspec.yml").encode()
    return make_zip(*entries, ZipEntry(top + b"link", b"d/e/f", 0o120777, method=0))


MAKERS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zip_with_link(FILES),
    "wrapped zip": lambda: zip_with_link({f"top/{name}": FILES[name] for name in FILES}),
    "tar": lambda: archives.small_tar(FILES),
    "tgz": lambda: gzip.compress(archives.small_tar(FILES)),
    "wrapped tgz": lambda: gzip.compress(
        archives.small_tar({f"top/{name}": FILES[name] for name in FILES})
    ),
}


class Release:
    def __init__(self, where: Path, kind: str) -> None:
        self.bundle, self.tree, self.index = where / "bundle", where / "tree", where / "index"
        self.bundle.write_bytes(MAKERS[kind]())
        unpack.unpack(
            self.bundle,
            tree=self.tree,
            index=self.index,
            limits=LIMITS,
            cancel=Cancel(),
            progress=lambda _done, _total: None,
        )
        self.folder_times = {path: path.stat() for path in self.tree.rglob("*") if path.is_dir()}
        self.whole = self.fingerprint()

    def check(self, *, thorough: bool = True) -> list[str]:
        return releases.check_release(self.tree, self.index, thorough=thorough, cancel=Cancel())

    def restore(self, paths: list[str]) -> None:
        releases.restore_files(
            self.bundle, self.tree, self.index, paths, limits=LIMITS, cancel=Cancel()
        )

    def fingerprint(self) -> dict[str, tuple[object, ...]]:
        """Folders and links without their times, which nobody restores."""
        return {
            name: value if value[0].startswith("-") else (*value[:3], *value[4:])
            for name, value in fingerprint(self.tree).items()
        }


@pytest.fixture(params=MAKERS)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    return Release(tmp_path, request.param)


@pytest.fixture
def zipped(tmp_path: Path) -> Release:
    return Release(tmp_path, "zip")


def spoil(tree: Path) -> list[str]:
    """All that can happen to a tree; the paths that a quick check must find."""
    (tree / "appspec.yml").write_text("longer than before" * 10)
    (tree / "d/a").unlink()
    (tree / "z").unlink()
    (tree / "z").mkdir()
    (tree / "z/inside").write_text("x")
    for name in ("d/e/f", "d/e"):
        path = tree / name
        path.unlink() if path.is_file() else path.rmdir()
    (tree / "d/e").symlink_to("/etc")
    return ["appspec.yml", "d/a", "d/e", "d/e/f", "z"]


def test_an_untouched_release_is_whole(release: Release) -> None:
    assert release.check() == []
    assert release.check(thorough=False) == []


def test_damage_is_found_and_put_back(release: Release) -> None:
    paths = spoil(release.tree)
    assert release.check(thorough=False) == paths
    release.restore(paths)
    assert release.check() == []
    assert release.fingerprint() == release.whole
    assert sorted(os.listdir(release.tree.parent)) == ["bundle", "index", "tree"]


def test_content_of_the_same_size_and_time_is_found_by_a_thorough_check(zipped: Release) -> None:
    path = zipped.tree / "d/big"
    status = path.stat()
    path.write_bytes(b"!" * status.st_size)
    os.utime(path, ns=(0, status.st_mtime_ns))
    assert zipped.check(thorough=False) == []
    assert zipped.check(thorough=True) == ["d/big"]
    zipped.restore(["d/big"])
    assert zipped.check() == []


def test_links_are_checked_and_put_back(zipped: Release) -> None:
    for spoiled in (lambda path: path.symlink_to("/etc/passwd"), Path.touch, Path.mkdir):
        (zipped.tree / "link").unlink()
        spoiled(zipped.tree / "link")
        assert zipped.check(thorough=False) == ["link"]
        zipped.restore(["link"])
        assert zipped.fingerprint() == zipped.whole


def test_a_running_program_keeps_its_old_file(zipped: Release) -> None:
    """A file is replaced, never written to."""
    path = zipped.tree / "d/a"
    path.write_bytes(b"changed")
    with path.open("rb") as file:
        zipped.restore(["d/a"])
        assert file.read() == b"changed"
    assert path.read_bytes() == FILES["d/a"]


def test_a_tree_that_is_gone_comes_back_as_a_whole(release: Release) -> None:
    releases.remove_tree(release.tree, Cancel())
    with Index(release.index) as index:
        everything = [entry.path for entry in index]
    assert release.check() == everything
    release.restore(everything)
    assert release.fingerprint() == release.whole


def expect_damaged(release: Release, paths: list[str]) -> str:
    with pytest.raises(AgentError) as caught:
        release.restore(paths)
    assert caught.value.code is Code.RELEASE_DAMAGED
    assert caught.value.remedy
    return caught.value.message


def test_a_bundle_that_is_gone_or_is_another(zipped: Release) -> None:
    zipped.bundle.write_bytes(zip_with_link({**FILES, "d/a": b"b" * 100}))
    assert "d/a" in expect_damaged(zipped, ["d/a"])
    zipped.bundle.write_bytes(zip_with_link({"appspec.yml": APPSPEC, "d/e/f": b"f"}))
    assert "has no d/a" in expect_damaged(zipped, ["d/a"])
    zipped.bundle.write_bytes(b"PK\3\4 no longer a zip")
    expect_damaged(zipped, ["d/a"])
    zipped.bundle.unlink()
    expect_damaged(zipped, ["d/a"])
    assert zipped.fingerprint() == zipped.whole


def test_a_path_that_is_not_in_the_index(zipped: Release) -> None:
    assert "../evil" in expect_damaged(zipped, ["../evil"])


def test_a_damaged_index(zipped: Release) -> None:
    zipped.index.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    for work in (zipped.check, lambda: zipped.restore(["d/a"])):
        with pytest.raises(AgentError) as caught:
            work()
        assert caught.value.code is Code.RELEASE_DAMAGED


def test_links_and_folders_need_no_bundle(zipped: Release) -> None:
    zipped.bundle.unlink()
    (zipped.tree / "link").unlink()
    zipped.restore(["link"])
    assert zipped.fingerprint() == zipped.whole


# -- the index


def test_index_lookup_and_totals(zipped: Release) -> None:
    with Index(zipped.index) as index:
        totals = index.totals()
        assert totals == (5, 2, 1, sum(map(len, FILES.values())))
        entry = index.lookup("d/a")
        assert entry is not None
        assert (entry.kind, entry.mode, entry.size) == ("file", 0o755, 100)
        assert index.lookup("d/none") is None


def test_index_is_refused_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="does not exist"):
        Index(tmp_path / "none")


# -- removal


def test_removing_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep me")
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/out").symlink_to(outside)
    (tree / "out").symlink_to(outside / "precious")
    os.link(outside / "precious", tree / "second name")
    os.mkfifo(tree / "fifo")
    before = fingerprint(outside)
    releases.remove_tree(tree, Cancel())
    assert not tree.exists()
    assert {name: value[:5] for name, value in fingerprint(outside).items()} == {
        name: value[:5] for name, value in before.items()
    }
    (tmp_path / "link").symlink_to(outside)
    releases.remove_tree(tmp_path / "link", Cancel())
    assert sorted(os.listdir(tmp_path)) == ["outside"]


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    releases.remove_tree(tmp_path / "none", Cancel())


def test_removing_a_tree_deeper_than_any_path(tmp_path: Path) -> None:
    """A service may make a folder of any depth; a path is at most 4096 bytes, and fds are few."""
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:
            file.write("x")
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    releases.remove_tree(tree, Cancel())
    assert not tree.exists()


def test_removing_stops_when_cancelled_and_can_go_on(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(1000):
        (tree / str(number)).touch()
    cancel = Cancel()
    cancel.set("enough")
    with pytest.raises(Interrupted):
        releases.remove_tree(tree, cancel)
    assert 0 < len(os.listdir(tree)) < 1000
    releases.remove_tree(tree, Cancel())
    assert not tree.exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tree with another file system in it."""
    where = tmp_path / "tree/d/mounted"
    where.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(where)], check=True)
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.root
def test_removing_does_not_cross_into_another_file_system(mounted: Path) -> None:
    (mounted / "precious").write_text("keep me")
    with pytest.raises(AgentError, match="mounted"):
        releases.remove_tree(mounted.parents[1], Cancel())
    assert (mounted / "precious").read_text() == "keep me"


def test_modes_are_put_back(zipped: Release) -> None:
    (zipped.tree / "d/a").unlink()
    before = os.umask(0o077)
    try:
        zipped.restore(["d/a"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((zipped.tree / "d/a").stat().st_mode) == 0o755
