"""What is unpacked is what was packed, by whichever tool."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import archives, inflating
from tests.archives import APPSPEC, MTIME, ZipEntry, make_tar, make_zip, tar_entry
from tests.unpacking import (
    MAKERS,
    TOOLS,
    assert_index_matches,
    listing,
    make_folder,
    pack,
    unpack_bundle,
)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "packed")


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


@pytest.mark.parametrize("tool", ["zip", "tar pax gz"])
def test_without_isal_it_is_the_same(tool: str, packed: Path, tmp_path: Path) -> None:
    with inflating.by("zlib"):
        unpack_bundle(pack(tool, packed, tmp_path / "bundle.any"))
    assert listing(tmp_path / "new") == listing(packed)
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


def test_a_zip_with_a_comment_and_dos_times(tmp_path: Path) -> None:
    """A DOS time has no zone: it is taken as UTC."""
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
