"""What the old release has too is linked, if it is the same in every way."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives
from tests.archives import APPSPEC, MTIME, ZipEntry, make_zip
from tests.unpacking import (
    MAKERS,
    assert_index_matches,
    indexed,
    listing,
    make_folder,
    pack,
    unpack_bundle,
    zip_of,
)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packed")


def inodes(tree: Path) -> dict[str, int]:
    return {name: (tree / name).lstat().st_ino for name in listing(tree)}


@pytest.fixture(params=["zip", "zip -0", "tar gnu", "tar gnu gz"])
def old(request: pytest.FixtureRequest, packed: Path, tmp_path: Path) -> str:
    """The old release is unpacked from `packed` by this tool."""
    unpack_bundle(pack(request.param, packed, tmp_path / "old.bundle"), "old")
    return request.param


def test_what_is_the_same_is_linked(old: str, packed: Path, tmp_path: Path) -> None:
    (packed / "data/nothing").write_text("changed")
    (packed / "data/deep/new").write_text("new")
    os.utime(packed / "data/nothing", (MTIME, MTIME))
    os.utime(packed / "data/deep/new", (MTIME, MTIME))
    bundle = pack(old, packed, tmp_path / "new.bundle")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 5
    assert result.files == 7
    assert listing(tmp_path / "new") == listing(packed)
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")
    before, after = inodes(tmp_path / "old"), inodes(tmp_path / "new")
    same = {name for name in after if before.get(name) == after[name]}
    assert same == {"appspec.yml", "scripts/start.sh", "data/big.bin", "data/secret",
                    "data/deep/er/é ü.txt"}  # fmt: skip


def test_an_unchanged_bundle_gives_an_equal_index(old: str, packed: Path, tmp_path: Path) -> None:
    bundle = pack(old, packed, tmp_path / "new.bundle")
    unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert indexed(tmp_path / "new.index") == indexed(tmp_path / "old.index")


def spoil_content(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"!" * status.st_size)


def spoil_mode(path: Path) -> None:
    path.chmod(0o640)


def spoil_owner(path: Path) -> None:
    os.chown(path, 65534, -1)


def spoil_kind(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def spoil_by_removing(path: Path) -> None:
    path.unlink()


@pytest.mark.root
@pytest.mark.parametrize(
    "spoil", [spoil_content, spoil_mode, spoil_owner, spoil_kind, spoil_by_removing]
)
def test_a_file_that_was_touched_is_not_reused(
    old: str, packed: Path, tmp_path: Path, spoil: object
) -> None:
    assert callable(spoil)
    for name in ("appspec.yml", "data/big.bin"):
        spoil(tmp_path / "old" / name)
    bundle = pack(old, packed, tmp_path / "new.bundle")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 4
    assert listing(tmp_path / "new") == listing(packed)


def test_another_mode_is_not_the_same(old: str, packed: Path, tmp_path: Path) -> None:
    (packed / "data/big.bin").chmod(0o755)
    bundle = pack(old, packed, tmp_path / "new.bundle")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 5
    assert listing(tmp_path / "new") == listing(packed)


def test_what_was_only_stamped_anew_is_the_same_and_keeps_its_time(
    old: str, packed: Path, tmp_path: Path
) -> None:
    before = listing(packed)
    for path in packed.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (MTIME + 1000, MTIME + 1000))
    (packed / "appspec.yml").write_text("version: 0.0  # other\n")
    os.utime(packed / "appspec.yml", (MTIME + 1000, MTIME + 1000))
    bundle = pack(old, packed, tmp_path / "new.bundle")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 5
    found = listing(tmp_path / "new")
    assert found.pop("appspec.yml") == listing(packed)["appspec.yml"]
    del before["appspec.yml"]
    assert found == before
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


def test_equal_size_mtime_and_crc_do_not_make_it_the_same(tmp_path: Path) -> None:
    """The CRC of a zip's header is not trusted: the bytes are hashed."""
    for name, content in (("old", b"one"), ("new", b"two")):
        (tmp_path / f"{name}.bundle").write_bytes(make_zip(ZipEntry(b"f", content, method=0)))
    unpack_bundle(tmp_path / "old.bundle", "old")
    reuse = (tmp_path / "old", tmp_path / "old.index")
    assert unpack_bundle(tmp_path / "new.bundle", reuse=reuse).reused == 0
    assert (tmp_path / "new/f").read_bytes() == b"two"


def test_packed_bytes_mean_something_else_under_another_method(tmp_path: Path) -> None:
    """Deflated bytes and the same bytes stored are two contents, whatever sizes are told."""
    content = os.urandom(40)
    deflated = archives.local_part(ZipEntry(b"f", content))[31:]
    (tmp_path / "old.bundle").write_bytes(make_zip(ZipEntry(b"f", deflated, method=0)))
    (tmp_path / "new.bundle").write_bytes(make_zip(ZipEntry(b"f", content)))
    unpack_bundle(tmp_path / "old.bundle", "old")
    with sqlite3.connect(tmp_path / "old.index") as index:
        index.execute("UPDATE entries SET size = ?", (len(content),))
    os.truncate(tmp_path / "old/f", len(content))
    os.utime(tmp_path / "old/f", ns=(0, indexed(tmp_path / "old.index")["f"][3]))
    reuse = (tmp_path / "old", tmp_path / "old.index")
    assert unpack_bundle(tmp_path / "new.bundle", reuse=reuse).reused == 0
    assert (tmp_path / "new/f").read_bytes() == content


def test_reuse_across_a_wrapping_folder(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "old.bundle").write_bytes(zip_of({"v1/appspec.yml": APPSPEC, "v1/f": b"x"}))
    (tmp_path / "new.bundle").write_bytes(zip_of({"v2/appspec.yml": APPSPEC, "v2/f": b"x"}))
    unpack_bundle(tmp_path / "old.bundle", "old")
    reuse = (tmp_path / "old", tmp_path / "old.index")
    assert unpack_bundle(tmp_path / "new.bundle", reuse=reuse).reused == 2


def test_an_old_release_that_is_gone_is_no_hindrance(packed: Path, tmp_path: Path) -> None:
    bundle = pack("zip", packed, tmp_path / "bundle.any")
    (tmp_path / "bad.index").write_bytes(b"not sqlite at all" * 100)
    (tmp_path / "old").mkdir()
    for reuse in [
        (tmp_path / "none", tmp_path / "none.index"),
        (tmp_path / "old", tmp_path / "none.index"),
        (tmp_path / "old", tmp_path / "bad.index"),
    ]:
        assert unpack_bundle(bundle, f"new{len(os.listdir(tmp_path))}", reuse=reuse).reused == 0


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(where)], check=True)
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("tool", ["zip", "tar gnu", "tar gnu gz"])
def test_what_cannot_be_linked_is_written(
    tool: str, packed: Path, other_disk: Path, tmp_path: Path
) -> None:
    bundle = pack(tool, packed, other_disk / "bundle.any")
    unpack_bundle(bundle, "old")
    bundle = pack(tool, packed, tmp_path / "bundle.any")
    result = unpack_bundle(bundle, reuse=(other_disk / "old", other_disk / "old.index"))
    assert result.reused == 0
    assert listing(tmp_path / "new") == listing(packed)
    assert indexed(tmp_path / "new.index") == indexed(other_disk / "old.index")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_descriptors_are_few_however_many_folders_there_are(kind: str, tmp_path: Path) -> None:
    files = {f"{number}/" + "deep/" * 60 + "f": b"x" for number in range(100)}
    bundle = tmp_path / "bundle"
    bundle.write_bytes(MAKERS[kind](files))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    try:
        unpack_bundle(bundle, "old")
        result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.reused == 100
