"""Packing a folder with the tools that teams use, unpacking it with ours, and comparing."""

from __future__ import annotations

import gzip
import hashlib
import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.archive import unpack
from agent.archive.index import Index
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import archives
from tests.archives import APPSPEC, MTIME, ZipEntry, make_zip

LIMITS = Limits(free_bytes=0, free_inodes=0)
LIMITED = {  # less than what is known again in tests takes
    "members": replace(LIMITS, members=40),
    "bytes": replace(LIMITS, unpacked_bytes=1000),
    "depth": replace(LIMITS, depth=1),
}
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


def make_folder(root: Path) -> Path:
    """A folder as a team would bundle it."""
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


def rows(index: Path) -> list[tuple[object, ...]]:
    """The index with all its columns, those for finding entries again among them."""
    with sqlite3.connect(index) as database:
        return database.execute("SELECT * FROM entries ORDER BY path").fetchall()


def redeploy(where: Path, before: bytes, after: bytes, limits: Limits = LIMITS) -> unpack.Unpacked:
    """Unpack `before` as old, `after` as new, and `after` again as plain, without reuse."""
    (where / "old.bundle").write_bytes(before)
    unpack_bundle(where / "old.bundle", "old")
    bundle = where / "new.bundle"
    bundle.write_bytes(after)
    result = unpack_bundle(bundle, reuse=(where / "old", where / "old.index"), limits=limits)
    plain = unpack_bundle(bundle, "plain", limits=limits)
    assert (result.files, result.bytes, result.warnings) == (
        plain.files,
        plain.bytes,
        plain.warnings,
    )
    assert listing(where / "new") == listing(where / "plain")
    assert rows(where / "new.index") == rows(where / "plain.index")
    assert_index_matches(where / "new", where / "new.index")
    return result


def redeploy_marked(
    where: Path, before: bytes, after: bytes, mark_old: Callable[[Path], None], limits: Limits
) -> unpack.Unpacked:
    """As redeploy(), and `after` once more as again, after mark_old() marked what is old."""
    result = redeploy(where, before, after, limits)
    mark_old(where)
    reuse = (where / "old", where / "old.index")
    unpack_bundle(where / "new.bundle", "again", reuse=reuse, limits=limits)
    return result


def refuse_again(bundle: Path, limits: Limits) -> None:
    """Unpack a bundle as old, and again where all of it is known: the limits refuse it then."""
    unpack_bundle(bundle, "old")
    where = bundle.parent
    with pytest.raises(AgentError) as caught:
        unpack_bundle(bundle, reuse=(where / "old", where / "old.index"), limits=limits)
    assert caught.value.code is Code.BUNDLE_REFUSED


def outcome(bundle: Path, name: str, reuse: tuple[Path, Path] | None) -> object:
    """What an unpacking comes to, in all that must not depend on what was there before."""
    where = bundle.parent
    try:
        result = unpack_bundle(bundle, name, reuse=reuse)
    except AgentError as error:
        return error.code
    found = (result.files, result.bytes, result.warnings)
    return found, listing(where / name), rows(where / f"{name}.index")


def zip_of(files: dict[str, bytes]) -> bytes:
    return make_zip(*(ZipEntry(name.encode(), content) for name, content in files.items()))


MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zip_of,
    "tar": archives.small_tar,
    "tgz": lambda files: gzip.compress(archives.small_tar(files)),
}
