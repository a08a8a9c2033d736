"""Making bundles: the same bytes each time, what goes in, and what other readers make of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings

from agent.archive import names
from agent.formats import manifest
from agent.model.errors import Code
from tests import unpacking
from tests.component.test_archive_properties import QUICK, is_plain, tree
from tests.lint.source import ROOT
from tests.packing import FILES, build, make_folder, packed, refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "shop")


# the same bytes


@pytest.mark.slow
def test_bytes_depend_on_nothing_but_the_content(tmp_path: Path) -> None:
    digests = set()
    seed = random.Random(4)
    for number in range(4):
        parent = tmp_path / f"some where {number}"
        parent.mkdir()
        shuffled = list(FILES.items())
        seed.shuffle(shuffled)
        old_umask = os.umask((0o077, 0o022, 0o000, 0o027)[number])
        try:
            made = make_folder(parent / "shop", files=dict(shuffled))
            for path in sorted(made.rglob("*")):
                moment = seed.randrange(10**9)
                os.utime(path, (moment, moment), follow_symlinks=False)
            if number == 2:
                (made / "bin/helper.py").chmod(0o666)
                (made / ".git").mkdir()  # left out
            done = subprocess.run(
                [sys.executable, "-m", "agent.cli.main", "bundle", "shop", "--version", "1",
                 "--commit", "abc", "--json"],
                cwd=parent, check=True, capture_output=True,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                    "PYTHONHASHSEED": str(number),
                    "SOURCE_DATE_EPOCH": "1700000000",
                    "TZ": ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia")[number],
                    "LC_ALL": ("C", "C.UTF-8", "POSIX", "C.UTF-8")[number],
                },
            )  # fmt: skip
        finally:
            os.umask(old_umask)
        path = parent / "shop-1.zip"
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert json.loads(done.stdout)["sha256"] in digests
    assert len(digests) == 1


def test_entries(folder: Path) -> None:
    built = build(folder, SOURCE_DATE_EPOCH=1700000001)
    with zipfile.ZipFile(built.path) as archive:
        rows = {each.filename: each for each in archive.infolist()}
    assert list(rows) == [
        "appspec.yml", "bin/", "bin/app", "bin/helper.py", "current", "empty/", "nothing",
        "scripts/", "scripts/start.sh", "ümlaut/", "ümlaut/é ü.txt", "release.json",
    ]  # fmt: skip
    modes = {name: stat.filemode(each.external_attr >> 16) for name, each in rows.items()}
    assert modes["bin/app"] == modes["scripts/start.sh"] == "-rwxr-xr-x"
    assert modes["bin/helper.py"] == modes["nothing"] == modes["release.json"] == "-rw-r--r--"
    assert modes["empty/"] == "drwxr-xr-x"
    assert modes["current"] == "lrwxrwxrwx"
    assert {each.date_time for each in rows.values()} == {(2023, 11, 14, 22, 13, 20)}


@pytest.mark.parametrize(
    ("epoch", "year", "built_at"),
    [("0", 1980, 0.0), ("1", 1980, 0.0), ("1700000000", 2023, 1.7e9), ("9" * 10, 2107, 9999999999)],
)
def test_times_that_a_zip_cannot_hold(folder: Path, epoch: str, year: int, built_at: float) -> None:
    built = build(folder, SOURCE_DATE_EPOCH=epoch)
    with zipfile.ZipFile(built.path) as archive:
        assert {each.date_time[0] for each in archive.infolist()} == {year}
    assert built.manifest.built_at == built_at


@pytest.mark.parametrize("epoch", ["-1", "soon", "1.5", "²", "9" * 30])
def test_source_date_epoch_that_is_no_time(folder: Path, epoch: str) -> None:
    error = refusal(folder, SOURCE_DATE_EPOCH=epoch)
    assert error.code is Code.BAD_REQUEST
    assert "SOURCE_DATE_EPOCH" in error.message


# other readers


def test_our_reader_takes_it(folder: Path, tmp_path: Path) -> None:
    built = build(folder, SOURCE_DATE_EPOCH=1700000000)
    unpacked = unpacking.unpack_bundle(built.path)
    found = unpacking.listing(tmp_path / "new")
    for name, (content, mode) in FILES.items():
        expected = oct(0o755 if mode & 0o100 else 0o644)
        assert found[name] == ("file", expected, content.encode(), 1700000000 * 10**9)
    assert found["current"] == ("link", "bin/app")
    assert found["empty"] == ("dir", "0o755")
    text = (tmp_path / "new/release.json").read_bytes()
    assert manifest.parse_manifest(text) == built.manifest
    assert built.manifest.unpacked is not None
    counted = (built.manifest.unpacked.files, built.manifest.unpacked.bytes)
    assert counted == (unpacked.files, unpacked.bytes)
    assert unpacked.warnings == ()


def test_unzip_takes_it(folder: Path, tmp_path: Path) -> None:
    built = build(folder)
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(["unzip", "-q", built.path, "-d", tmp_path / "new"], check=True, env=environ)
    for name, (content, mode) in FILES.items():
        path = tmp_path / "new" / name
        assert path.read_text() == content
        assert bool(path.stat().st_mode & 0o100) == bool(mode & 0o100)
    assert os.readlink(tmp_path / "new/current") == "bin/app"
    assert (tmp_path / "new/empty").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(60)  # each example brings two files to the disk
@settings(QUICK, max_examples=40)
@given(files=tree)
def test_random_trees_come_out_again(files: dict[str, tuple[bytes, int]]) -> None:
    assume(is_plain(files))
    assume(not any(name.lower().startswith(("appspec", "release.json")) for name in files))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as where:
        root = Path(where, "shop")
        root.mkdir()
        (root / "appspec.yml").write_text("version: 0.0\nos: linux\n")
        for name, (content, mode) in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
            (root / name).chmod(mode)
        built = build(root, allowed_secrets=tuple(name.split("/")[0] for name in files))
        unpacking.unpack_bundle(built.path)
        found = unpacking.listing(Path(where, "new"))
        out = {name: row[1:3] for name, row in found.items() if row[0] == "file"}
        out = {
            name: row for name, row in out.items() if name not in ("appspec.yml", "release.json")
        }
        expected = {
            name: (oct(0o755 if mode & 0o100 else 0o644), content)
            for name, (content, mode) in files.items()
            if not name.endswith(".pyc")
        }
        assert out == expected


def test_zip64(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit of the library lowered, as nobody waits for 4 GiB."""
    plain = build(folder).size
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    built = build(folder, replace=True)
    assert built.size > plain
    assert b"PK\x06\x06" in built.path.read_bytes()
    unpacking.unpack_bundle(built.path)
    assert (tmp_path / "new/bin/app").read_text() == FILES["bin/app"][0]
    subprocess.run(["unzip", "-tq", built.path], check=True, capture_output=True)


# what is left out


def test_defaults_are_left_out(folder: Path) -> None:
    for name in (".git/config", "sub/.git/x", "sub/.svn/x", "__pycache__/y.pyc", "y.pyc",
                 ".DS_Store", "._x", ".deployignore"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    built = build(folder)
    assert built.left_out == (
        ".DS_Store", "._x", ".deployignore", ".git/", "__pycache__/", "sub/.git/", "sub/.svn/",
        "y.pyc",
    )  # fmt: skip
    assert not [name for name in packed(built) if any(each in name for each in built.left_out)]


def test_git_is_never_packed(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / "sub").mkdir()
    (folder / "sub/.git").write_text("gitdir: elsewhere\n")
    (folder / "y.pyc").touch()
    (folder / ".deployignore").write_text("!.git\n!.git/\n!*\n!*.pyc\n")
    built = build(folder)
    assert built.left_out == (".git/", "sub/.git")
    assert "y.pyc" in packed(built)


IGNORES = """
# a comment
*.log
!keep.log
/only-here.txt
build/
docs/**/*.md
spaces\\ in\\ name
trailing\x20\x20
\\#hash
[abc].txt
**/deep
foo/*
!foo/bar
"""
PATHS = [
    "a.log", "x/a.log", "x/keep.log", "only-here.txt", "x/only-here.txt", "build/x", "x/build/y",
    "buildx", "docs/a.md", "docs/b/c/d.md", "md/a.md", "spaces in name", "trailing", "#hash",
    "a.txt", "d.txt", "x/deep/y", "deep", "foo/a", "foo/bar/x", "x/foo/a",
]  # fmt: skip


def test_patterns_mean_what_they_mean_to_git(folder: Path) -> None:
    for name in PATHS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".deployignore").write_text(IGNORES)
    (folder / "current").unlink()
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", folder], check=True, env=environ)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-from=.deployignore"],
        cwd=folder, check=True, capture_output=True, text=True, env=environ,
    ).stdout.split("\0")  # fmt: skip
    ours = {name for name in packed(build(folder)) if not name.endswith("/")}
    assert ours - {"release.json"} == set(listed) - {"", ".deployignore"}


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"*.log\n!\n", "line 2"), (b"\xff\n", "UTF-8"), (b"x\n" * 2**20, "KiB")],
)
def test_ignore_file_that_is_none(folder: Path, content: bytes, says: str) -> None:
    (folder / ".deployignore").write_bytes(content)
    error = refusal(folder)
    assert error.code is Code.BAD_REQUEST
    assert says in error.message


def test_what_is_left_out_is_missed_by_lint(folder: Path) -> None:
    (folder / ".deployignore").write_text("bin/\n")
    (detail,) = refusal(folder).details
    assert detail.startswith(f"{folder}/appspec.yml:4:14: error: source: bin/app is not in the")
    (folder / ".deployignore").write_text("appspec.yml\n")
    (detail,) = refusal(folder).details
    assert "has no appspec.yml in its root" in detail


def test_names_that_are_skipped_by_hosts_are_left_out_here(folder: Path) -> None:
    for name in ("__MACOSX", "._x", ".DS_Store", "sub/._y"):
        assert names.is_skipped(name)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).mkdir() if name == "__MACOSX" else (folder / name).touch()
    assert unpacking.unpack_bundle(build(folder).path).warnings == ()
