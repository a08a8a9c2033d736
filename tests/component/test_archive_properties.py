"""Random trees come out as they went in; random damage never does more than be refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agent.archive import names, unpack
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import archives, inflating
from tests.archives import APPSPEC, ZipEntry, make_tar, make_zip, pax_entry, pax_record, tar_entry

pytestmark = pytest.mark.slow

LIMITS = Limits(free_bytes=0, free_inodes=0, unpacked_bytes=32 * 2**20, members=1000, ratio=500)
QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

part = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in (".", "..") and not names.is_skipped(name))
path = st.lists(part, min_size=1, max_size=4).map("/".join)
content = st.one_of(
    st.binary(max_size=2000), st.binary(min_size=1, max_size=3).map(lambda b: b * 99_991)
)
library = st.sampled_from(inflating.LIBRARIES)
tree = st.dictionaries(path, st.tuples(content, st.sampled_from([0o644, 0o755, 0o600])), max_size=8)


def is_plain(files: dict[str, object]) -> bool:
    """Whether a file system could hold it, and our rules on names agree."""
    folded = {names.folded(name) for name in files}
    clash = any(other.startswith(f"{name}/") for name in folded for other in folded)
    folders = {
        "/".join(name.split("/")[:n]) for name in files for n in range(1, name.count("/") + 1)
    }
    return (
        not clash
        and len(folded) == len(files)
        and len({names.folded(name) for name in folders}) == len(folders)
        and not any(name[1:2] == ":" for name in files)
        and all(len(each.encode()) < 256 for name in files for each in name.split("/"))
    )


@contextlib.contextmanager
def yard() -> Iterator[Path]:
    """A folder whose neighbours must stay as they are."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        where = Path(folder, "in")
        where.mkdir()
        Path(folder, "canary").write_text("keep me")
        yield where
        assert os.listdir(folder) in (["canary", "in"], ["in", "canary"])
        assert Path(folder, "canary").read_text() == "keep me"
        assert set(os.listdir(where)) <= {"bundle", "tree", "index"}


def unpack_bytes(bundle: bytes, where: Path) -> dict[str, tuple[bytes, int]]:
    """Path to content and mode."""
    (where / "bundle").write_bytes(bundle)
    unpack.unpack(
        where / "bundle",
        tree=where / "tree",
        index=where / "index",
        limits=LIMITS,
        cancel=Cancel(),
        progress=lambda _done, _total: None,
    )
    return {
        str(path.relative_to(where / "tree")): (
            path.read_bytes(),
            stat.S_IMODE(path.stat().st_mode),
        )
        for path in (where / "tree").rglob("*")
        if path.is_file()
    }


def by_zipfile(files: dict[str, tuple[bytes, int]], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, (content, mode) in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (stat.S_IFREG | mode) << 16
            file.writestr(info, content)
    return buffer.getvalue()


def by_tarfile(files: dict[str, tuple[bytes, int]], tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as file:
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@QUICK
@given(
    files=tree,
    how=st.sampled_from(["stored", "deflated", "gnu", "pax", "gnu gz", "pax gz"]),
    library=library,
)
def test_random_trees(files: dict[str, tuple[bytes, int]], how: str, library: str) -> None:
    assume(files and is_plain(files) and "appspec" not in "".join(files))
    if how in ("stored", "deflated"):
        method = zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED
        bundle = by_zipfile(files, method)
    else:
        number = tarfile.GNU_FORMAT if how.startswith("gnu") else tarfile.PAX_FORMAT
        bundle = by_tarfile(files, number)
        bundle = gzip.compress(bundle, 1) if how.endswith("gz") else bundle
    with yard() as where, inflating.by(library):
        assert unpack_bytes(bundle, where) == files


SEEDS = {
    "zip": make_zip(
        ZipEntry(b"appspec.yml", APPSPEC),
        ZipEntry(b"d/", mode=0o040755),
        ZipEntry(b"d/f", b"content " * 50),
        ZipEntry("d/\u00e9".encode(), b"x", method=0),
        ZipEntry(b"link", b"d/f", mode=0o120777, method=0),
        comment=b"comment",
    ),
    "zip64": archives.make_zip64(ZipEntry(b"d/f", b"content " * 50)),
    "tar": make_tar(
        tar_entry(b"appspec.yml", APPSPEC),
        tar_entry(b"d/", kind=b"5"),
        pax_entry(pax_record("path", b"d/f") + pax_record("mtime", b"1700000000.5")),
        tar_entry(b"x", b"content " * 50),
        tar_entry(b"././@LongLink", b"d/" + b"g" * 120 + b"\0", kind=b"L"),
        tar_entry(b"y", b"x"),
        tar_entry(b"link", kind=b"2", linkname=b"d/f"),
    ),
}
SEEDS["tgz"] = gzip.compress(SEEDS["tar"], 6, mtime=0)
ALLOWED = {Code.BUNDLE_REFUSED, Code.BUNDLE_DAMAGED}


@pytest.mark.parametrize("kind", SEEDS)
def test_the_seeds_are_good(kind: str) -> None:
    with yard() as where:
        assert "d/f" in unpack_bytes(SEEDS[kind], where)


@pytest.mark.parametrize("kind", SEEDS)
@QUICK
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    library=library,
)
def test_random_damage(
    kind: str, changes: list[tuple[float, int]], keep: float, library: str
) -> None:
    bundle = bytearray(SEEDS[kind])
    for place, value in changes:
        bundle[int(place * (len(bundle) - 1))] = value
    with inflating.by(library):
        expect_no_harm(bytes(bundle[: int(keep * len(bundle))]))


@pytest.mark.parametrize("kind", ["tar", "zip"])
@QUICK
@given(place=st.floats(0, 1), words=st.binary(min_size=1, max_size=12))
def test_random_words_in_headers(kind: str, place: float, words: bytes) -> None:
    """Longer runs; a tar's checksums are put right again, so that the words are looked at."""
    bundle = bytearray(SEEDS[kind])
    at = int(place * (len(bundle) - 1))
    bundle[at : at + len(words)] = words
    if kind == "tar":
        for block in range(0, len(bundle) - 511, 512):
            if bundle[block + 257 : block + 262] == b"ustar":
                bundle[block + 148 : block + 156] = b" " * 8
                total = sum(bundle[block : block + 512])
                bundle[block + 148 : block + 156] = b"%06o\0 " % total
    expect_no_harm(bytes(bundle))


def failure(bundle: bytes, where: Path) -> AgentError | None:
    try:
        unpack_bytes(bundle, where)
    except AgentError as error:
        return error
    return None


def expect_no_harm(bundle: bytes) -> None:
    with yard() as where:
        error = failure(bundle, where)
        if error is not None:
            assert error.code in ALLOWED, error.message
            assert error.message.isprintable()
            assert error.remedy
        size = sum(entry.lstat().st_size for entry in (where / "tree").rglob("*"))
        assert size <= LIMITS.unpacked_bytes


@given(st.text(max_size=300))
def test_a_clean_name_stays_below_its_folder(name: str) -> None:
    try:
        clean = names.clean(name)
    except (AgentError, UnicodeEncodeError):
        return
    assert names.clean(clean) == clean if clean else True
    assert os.path.normpath(os.path.join("/root", clean)).startswith("/root")
    assert not os.path.isabs(clean)
    assert ".." not in clean.split("/")


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b"]), max_size=8), st.integers(0, 3))
def test_a_link_path_is_where_the_kernel_would_go(target: list[str], depth: int) -> None:
    at = "/".join([*"xyz"[:depth], "link"])
    try:
        found = names.link_path(at, "/".join(target))
    except AgentError:
        return
    joined = os.path.normpath(os.path.join("/root", os.path.dirname(at), "/".join(target)))
    assert joined == os.path.normpath(os.path.join("/root", found))
