"""What is unpacked is what was packed, by whichever tool; and what is reused is the same."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sqlite3
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.archive import unpack
from agent.archive.index import Index
from agent.model.errors import AgentError, Code, Interrupted, TransientError
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import archives
from tests.archives import APPSPEC, MTIME, ZipEntry, make_tar, make_zip, tar_entry

LIMITS = Limits(free_bytes=0, free_inodes=0)
BIG = bytes(range(256)) * 4096 + os.urandom(2**20)  # 2 MiB, half of it compressible

TOOLS = {
    "zip": ["zip", "-qr", "{out}", "."],
    "zip -0": ["zip", "-qr0", "{out}", "."],
    "zip -y": ["zip", "-qry", "{out}", "."],
    "tar gnu": ["tar", "--format=gnu", "-cf", "{out}", "."],
    "tar pax": ["tar", "--format=pax", "-cf", "{out}", "."],
    "tar ustar": ["tar", "--format=ustar", "-cf", "{out}", "."],
    "tar v7": ["tar", "--format=v7", "-cf", "{out}", "appspec.yml", "scripts", "data", "empty"],
    "tar gnu gz": ["tar", "--format=gnu", "-czf", "{out}", "."],
    "tar pax gz": ["tar", "--format=pax", "-czf", "{out}", "."],
    "python zip": ["python3", "-m", "zipfile", "-c", "{out}", "appspec.yml", "scripts", "data",
                   "empty"],
    "python tar": ["python3", "-m", "tarfile", "-c", "{out}", "appspec.yml", "scripts", "data",
                   "empty"],
}  # fmt: skip
SHORT_NAMES = ("tar ustar", "tar v7")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder as a team would bundle it."""
    root = tmp_path / "packed"
    for folder in ("scripts", "data/deep/er", "empty"):
        (root / folder).mkdir(parents=True)
    (root / "appspec.yml").write_bytes(APPSPEC)
    (root / "scripts/start.sh").write_text("#!/bin/sh\n")
    (root / "scripts/start.sh").chmod(0o755)
    (root / "data/big.bin").write_bytes(BIG)
    (root / "data/nothing").touch()
    (root / "data/secret").write_text("s")
    (root / "data/secret").chmod(0o600)
    (root / "data/deep/er/é ü.txt").write_text("é")
    for number, path in enumerate(sorted(root.rglob("*"))):
        if path.is_file():
            os.utime(path, (MTIME + number, MTIME + number))
    return root


def pack(tool: str, folder: Path, out: Path) -> Path:
    command = [part.format(out=out) for part in TOOLS[tool]]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "TZ": "UTC"})
    return out


def unpack_bundle(
    bundle: Path,
    name: str = "new",
    *,
    reuse: tuple[Path, Path] | None = None,
    limits: Limits = LIMITS,
) -> unpack.Unpacked:
    """Into <name> and <name>.index beside the bundle."""
    return unpack.unpack(
        bundle,
        tree=bundle.parent / name,
        index=bundle.parent / f"{name}.index",
        limits=limits,
        cancel=Cancel(),
        progress=lambda _done, _total: None,
        reuse=reuse,
    )


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Path below root: kind, mode of files, content or target, and mtime of files."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("dir", oct(stat.S_IMODE(status.st_mode)))
        else:
            mode = oct(stat.S_IMODE(status.st_mode))
            found[name] = ("file", mode, path.read_bytes(), status.st_mtime_ns)
    return found


def indexed(index: Path) -> dict[str, tuple[object, ...]]:
    with Index(index) as listed:
        return {entry.path: tuple(entry)[1:] for entry in listed}


def assert_index_matches(tree: Path, index: Path) -> None:
    rows = indexed(index)
    assert list(rows) == sorted(rows, key=str.encode)
    assert rows.keys() == listing(tree).keys()
    for name, (kind, mode, size, mtime_ns, digest, _, target) in rows.items():
        status = (tree / name).lstat()
        if kind == "file":
            assert (status.st_size, status.st_mtime_ns) == (size, mtime_ns)
            assert stat.S_IMODE(status.st_mode) == mode
            assert digest == hashlib.sha256((tree / name).read_bytes()).digest()
            assert target is None
        elif kind == "link":
            assert os.readlink(tree / name) == target
            assert digest == hashlib.sha256(target.encode()).digest()
        else:
            assert (kind, mode, size, mtime_ns, digest, target) == ("dir", 0o755, 0, 0, b"", None)


@pytest.mark.parametrize("tool", TOOLS)
def test_unpacked_is_what_was_packed(tool: str, packed: Path, tmp_path: Path) -> None:
    bundle = pack(tool, packed, tmp_path / "bundle.any")
    result = unpack_bundle(bundle)
    expected = listing(packed)
    if tool == "python zip":  # it keeps no times, and folders only if they are empty
        expected = {name: entry[:3] for name, entry in expected.items()}
        found = {name: entry[:3] for name, entry in listing(tmp_path / "new").items()}
        assert found == expected
    else:
        assert listing(tmp_path / "new") == expected
    assert result.files == 6
    assert result.bytes == sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    assert (result.reused, result.warnings) == (0, ())
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


@pytest.mark.parametrize("tool", ["zip -y", "tar gnu", "tar pax gz"])
def test_links_that_stay_inside_are_kept(tool: str, packed: Path, tmp_path: Path) -> None:
    (packed / "current").symlink_to("data/deep")
    (packed / "data/deep/up").symlink_to("../../scripts/start.sh")
    (packed / "data/deep/chain").symlink_to("./up")
    (packed / "self").symlink_to(".")
    bundle = pack(tool, packed, tmp_path / "bundle.any")
    unpack_bundle(bundle)
    assert listing(tmp_path / "new") == listing(packed)
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


@pytest.mark.parametrize("tool", ["zip", "tar gnu", "tar pax", "tar gnu gz"])
def test_long_names(tool: str, packed: Path, tmp_path: Path) -> None:
    deep = packed / ("d" * 200) / ("é" * 100)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_text("deep")
    os.utime(deep / ("f" * 255), (MTIME, MTIME))
    unpack_bundle(pack(tool, packed, tmp_path / "bundle.any"))
    assert listing(tmp_path / "new") == listing(packed)


def test_pax_times_are_kept_to_the_nanosecond(packed: Path, tmp_path: Path) -> None:
    os.utime(packed / "appspec.yml", ns=(0, MTIME * 10**9 + 123_456_789))
    unpack_bundle(pack("tar pax", packed, tmp_path / "bundle.any"))
    assert (tmp_path / "new/appspec.yml").stat().st_mtime_ns == MTIME * 10**9 + 123_456_789


@pytest.mark.parametrize(
    ("mode", "kept"),
    [(0o777, 0o755), (0o4755, 0o755), (0o2770, 0o750), (0o1666, 0o644), (0o600, 0o600),
     (0o400, 0o600), (0o000, 0o600), (0o100, 0o700)],
)  # fmt: skip
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_modes(mode: int, kept: int, umask: int, tmp_path: Path) -> None:
    """Executable stays executable; nothing is setuid or writable by others, nothing is widened."""
    bundle = tmp_path / "bundle"
    bundle.write_bytes(
        make_tar(tar_entry(b"f", b"x", mode=b"%07o\0" % mode), tar_entry(b"d/f", b"x"))
    )
    before = os.umask(umask)
    try:
        result = unpack_bundle(bundle)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new/f").stat().st_mode) == kept
    assert stat.S_IMODE((tmp_path / "new/d/f").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "new/d").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
    assert bool(result.warnings) == bool(mode & 0o7000)
    assert all("'f'" in warning for warning in result.warnings)


def test_a_zip_made_on_windows_gives_plain_modes(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(make_zip(ZipEntry(b"f", b"x", host=0, mode=0o777)))
    unpack_bundle(bundle)
    assert stat.S_IMODE((tmp_path / "new/f").stat().st_mode) == 0o644


def test_names_of_a_zip_are_utf8_or_cp437(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(
        make_zip(
            ZipEntry("utf-8 é".encode(), b"1", flags=0x0800),
            ZipEntry("not said é".encode(), b"2", flags=0),
            ZipEntry("dos é".encode("cp437"), b"3", flags=0),
        )
    )
    unpack_bundle(bundle)
    assert sorted(os.listdir(tmp_path / "new")) == ["dos é", "not said é", "utf-8 é"]


def test_extras_of_macos_are_left_out(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    names = ["appspec.yml", "__MACOSX/._appspec.yml", ".DS_Store", "a/.DS_Store", "a/._b", "a/b"]
    bundle.write_bytes(make_zip(*(ZipEntry(name.encode(), b"x") for name in names)))
    result = unpack_bundle(bundle)
    assert sorted(listing(tmp_path / "new")) == ["a", "a/b", "appspec.yml"]
    assert result.warnings == ("4 entries ('__MACOSX/._appspec.yml' first) of macOS left out",)


def test_zip64(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(archives.make_zip64(ZipEntry(b"f", b"content")))
    unpack_bundle(bundle)
    assert (tmp_path / "new/f").read_bytes() == b"content"


def test_zip_written_to_a_pipe(packed: Path, tmp_path: Path) -> None:
    """Sizes stand behind the content then, and zip64 extras come in too."""
    bundle = tmp_path / "bundle"
    command = "zip -qr - . | cat"
    bundle.write_bytes(subprocess.run(["sh", "-c", command], cwd=packed, stdout=-1).stdout)
    unpack_bundle(bundle)
    assert listing(tmp_path / "new").keys() == listing(packed).keys()


def test_several_gzip_members_and_padding(tmp_path: Path) -> None:
    tar = archives.small_tar({"a": b"1" * 3000, "b": b"2"})
    bundle = tmp_path / "bundle"
    bundle.write_bytes(gzip.compress(tar[:1500]) + gzip.compress(tar[1500:]) + bytes(100))
    unpack_bundle(bundle)
    assert (tmp_path / "new/a").read_bytes() == b"1" * 3000


def test_old_tar_without_magic(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    old = {"magic": bytes(8)}
    bundle.write_bytes(
        make_tar(tar_entry(b"d/", kind=b"\0", **old), tar_entry(b"d/f", b"x", kind=b"\0", **old))
    )
    unpack_bundle(bundle)
    assert (tmp_path / "new/d/f").read_bytes() == b"x"


def test_times_before_1970_and_far_off(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    far_off = b"\x80" + b"\x7f" * 11
    bundle.write_bytes(
        make_tar(
            tar_entry(b"old", b"x", mtime=b"\xff" * 12),
            tar_entry(b"far off", b"x", mtime=far_off),
            tar_entry(b"odd", b"x", mtime=b" 14524770400"),
        )
    )
    unpack_bundle(bundle)
    assert (tmp_path / "new/old").stat().st_mtime == 0
    assert (tmp_path / "new/far off").stat().st_mtime == 2**33
    assert (tmp_path / "new/odd").stat().st_mtime == MTIME
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


WRAPPED = {"top/appspec.yml": APPSPEC, "top/top/f": b"x", "top/d/g": b"y"}


def zip_of(files: dict[str, bytes]) -> bytes:
    return make_zip(*(ZipEntry(name.encode(), content) for name, content in files.items()))


MAKERS = {
    "zip": zip_of,
    "tar": archives.small_tar,
    "tgz": lambda files: gzip.compress(archives.small_tar(files)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (WRAPPED, ["appspec.yml", "d", "d/g", "top", "top/f"]),
        ({"top/my-appspec.yaml": b"", "top/.unwrapped/x": b""},
         [".unwrapped", ".unwrapped/x", "my-appspec.yaml"]),
        ({"top/deep/appspec.yml": b""}, ["top", "top/deep", "top/deep/appspec.yml"]),
        ({**WRAPPED, "f": b""},
         ["f", "top", "top/appspec.yml", "top/d", "top/d/g", "top/top", "top/top/f"]),
        ({"top/appspec.yml": b"", "else/f": b""}, ["else", "else/f", "top", "top/appspec.yml"]),
        ({"appspec.yml": b""}, ["appspec.yml"]),
    ],
    ids=["wrapped", "name in use", "not directly in it", "file beside", "two", "no folder"],
)  # fmt: skip
def test_one_wrapping_folder_is_stripped(
    kind: str, files: dict[str, bytes], expected: list[str], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(MAKERS[kind](files))
    unpack_bundle(bundle)
    assert sorted(listing(tmp_path / "new")) == expected
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


# -- reuse


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


def test_another_mtime_or_mode_is_not_the_same(old: str, packed: Path, tmp_path: Path) -> None:
    os.utime(packed / "appspec.yml", (MTIME + 1000, MTIME + 1000))
    (packed / "data/big.bin").chmod(0o755)
    bundle = pack(old, packed, tmp_path / "new.bundle")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 4
    assert listing(tmp_path / "new") == listing(packed)


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


# -- what goes wrong


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


def test_the_bundle_may_be_read_only_and_in_a_buffer_of_python(tmp_path: Path) -> None:
    """A zip by zipfile with every kind of name and a comment."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.comment = b"built by CI" * 100
        file.writestr(zipfile.ZipInfo("d/é", (2023, 1, 2, 3, 4, 6)), "x")
    bundle = tmp_path / "bundle"
    bundle.write_bytes(buffer.getvalue())
    unpack_bundle(bundle)
    assert (tmp_path / "new/d/é").stat().st_mtime == 1672628646


def test_tar_formats_of_python(tmp_path: Path) -> None:
    for number in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        bundle = tmp_path / f"bundle{number}"
        files = {"a" * 90 + "/" + "b" * 90: b"long", "é": b"x"}
        bundle.write_bytes(archives.small_tar(files, number))
        unpack_bundle(bundle, f"new{number}")
        found = listing(tmp_path / f"new{number}")
        assert {name for name, entry in found.items() if entry[0] == "file"} == files.keys()
