"""What can go wrong while unpacking: damage, a full disk, a cancel."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.archive import unpack
from agent.model.errors import AgentError, Code, Interrupted, TransientError
from agent.system.cancel import Cancel
from tests.archives import APPSPEC, ZipEntry, make_zip
from tests.unpacking import (
    LIMITS,
    MAKERS,
    make_folder,
    pack,
    unpack_bundle,
    zip_of,
)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packed")


@pytest.mark.slow
def test_a_cut_off_archive_is_damaged_wherever_it_is_cut(tmp_path: Path) -> None:
    files = {"appspec.yml": APPSPEC, "d/small": b"x" * 700, "d/big": os.urandom(300_000)}
    for kind, make in MAKERS.items():
        whole = make(files)
        bundle = tmp_path / "bundle"
        for number, cut in enumerate(range(0, len(whole) - 1, len(whole) // 40)):
            bundle.write_bytes(whole[:cut])
            with pytest.raises(AgentError) as caught:
                unpack_bundle(bundle, f"{kind}{number}")
            assert caught.value.code is Code.BUNDLE_DAMAGED, (kind, cut, caught.value.message)


def test_too_little_space_is_found_before_anything_is_written(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(zip_of({"f": b"x" * 5000}))
    with pytest.raises(TransientError) as caught:
        unpack_bundle(bundle, limits=replace(LIMITS, free_bytes=2**60))
    assert caught.value.code is Code.DISK_FULL
    assert "MiB" in caught.value.message
    assert not (tmp_path / "new").exists()
    bundle.write_bytes(MAKERS["tgz"]({"f": b"x" * 5000}))
    with pytest.raises(TransientError) as caught:
        unpack_bundle(bundle, limits=replace(LIMITS, free_bytes=2**60))
    assert caught.value.code is Code.DISK_FULL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=100", "none", str(where)]
    subprocess.run(mount, check=True)
    yield where
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "files", [{"f": os.urandom(3 * 2**20)}, {f"f{n}": b"" for n in range(150)}]
)
def test_a_full_disk_is_transient(
    kind: str, files: dict[str, bytes], small_disk: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(MAKERS[kind](files))
    with pytest.raises(TransientError) as caught:
        unpack.unpack(
            bundle,
            tree=small_disk / "tree",
            index=tmp_path / "index",
            limits=LIMITS,
            cancel=Cancel(),
            progress=lambda _done, _total: None,
        )
    assert caught.value.code is Code.DISK_FULL


@pytest.mark.slow
@pytest.mark.root
def test_a_full_disk_under_the_index_is_transient(small_disk: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(zip_of({f"{n:0100}": b"" for n in range(15_000)}))
    with pytest.raises(TransientError) as caught:
        unpack.unpack(
            bundle,
            tree=tmp_path / "tree",
            index=small_disk / "index",
            limits=LIMITS,
            cancel=Cancel(),
            progress=lambda _done, _total: None,
        )
    assert caught.value.code is Code.DISK_FULL
    assert os.listdir(small_disk) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_cancel_stops_it_and_leaves_no_thread(kind: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(MAKERS[kind]({f"f{n}": os.urandom(600_000) for n in range(20)}))
    cancel = Cancel()
    threads = threading.active_count()

    def stop(done: int, total: int) -> None:
        assert 0 <= done <= total
        cancel.set("enough")

    with pytest.raises(Interrupted):
        unpack.unpack(
            bundle,
            tree=tmp_path / "new",
            index=tmp_path / "new.index",
            limits=LIMITS,
            cancel=cancel,
            progress=stop,
        )
    assert threading.active_count() == threads
    assert not (tmp_path / "new.index").exists()


def test_nothing_is_left_beside_after_an_error(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(make_zip(ZipEntry(b"../evil", b"x")))
    with pytest.raises(AgentError):
        unpack_bundle(bundle)
    assert os.listdir(tmp_path) == ["bundle"]


def test_progress_ends_at_its_total(packed: Path, tmp_path: Path) -> None:
    for tool in ("zip", "tar gnu", "tar gnu gz"):
        seen: list[tuple[int, int]] = []
        where = tmp_path / tool.replace(" ", "-")
        unpack.unpack(
            pack(tool, packed, tmp_path / f"{where.name}.bundle"),
            tree=where,
            index=tmp_path / f"{where.name}.index",
            limits=LIMITS,
            cancel=Cancel(),
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen[-1][0] == seen[-1][1] > 0


def test_a_tree_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(zip_of({"f": b"x"}))
    (tmp_path / "new").mkdir()
    with pytest.raises(AgentError, match="File exists"):
        unpack_bundle(bundle)
    assert os.listdir(tmp_path / "new") == []
