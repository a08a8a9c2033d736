"""Making bundles: the same bytes each time, what goes in, what is refused, and our own reader."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given

from agent.archive import names
from agent.formats import manifest
from agent.model.appspec import Problem
from agent.model.errors import AgentError, Code
from agent.publish import bundle
from tests import unpacking
from tests.component.test_archive_properties import QUICK, is_plain, tree
from tests.lint.source import ROOT

APPSPEC = "version: 0.0\nos: linux\nfiles:\n  - {source: bin/app, destination: /opt/shop}\n"
FILES = {
    "appspec.yml": (APPSPEC, 0o644),
    "bin/app": ("app " * 5000, 0o755),
    "bin/helper.py": ("x = 1\n", 0o600),
    "scripts/start.sh": ("#!/bin/sh\n", 0o775),
    "ümlaut/é ü.txt": ("é", 0o640),
    "nothing": ("", 0o444),
}


def make_folder(root: Path, *, files: dict[str, tuple[str, int]] = FILES) -> Path:
    for name, (content, mode) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    (root / "empty").mkdir()
    (root / "current").symlink_to("bin/app")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "shop")


def build(folder: Path, version: str = "1.214", **more: object) -> bundle.Built:
    """Build beside the folder; with environment variables in capital letters."""
    environ = {key: str(more.pop(key)) for key in list(more) if key.isupper()}
    told: list[Problem] = more.pop("told", [])  # type: ignore[assignment]
    more.setdefault("output", folder.parent / "out.zip")
    request = bundle.Request(folder=folder, version=version, **more)  # type: ignore[arg-type]
    return bundle.build(request, {"PATH": os.environ["PATH"], **environ}, tell=told.append)


def refusal(folder: Path, **more: object) -> AgentError:
    """Why a folder is refused; nothing is left behind."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(AgentError) as caught:
        build(folder, **more)
    assert sorted(folder.parent.rglob("*")) == before
    assert caught.value.remedy
    return caught.value


def packed(built: bundle.Built) -> list[str]:
    with zipfile.ZipFile(built.path) as archive:
        return archive.namelist()


# the same bytes


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


@QUICK
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


# what is refused


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _named(name: str | bytes) -> Callable[[Path], None]:
    return lambda path: Path(
        os.fsdecode(os.fsencode(path.parent) + b"/" + os.fsencode(name))
    ).touch()


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "'odd': it is a fifo"),
        (_socket, "'odd': it is a socket"),
        (_link("/etc/passwd"), "'odd' is a link to '/etc/passwd'"),
        (_link("../shop/appspec.yml"), "outside the bundle"),
        (_link("bin/../../x"), "down and up again"),
        (_link("gone"), "is missing"),
        (_link("odd"), "circle"),
        (_named(b"odd\xff"), "odd\\xff': its name is not UTF-8"),
        (_named("odd\\name"), "backslash"),
        (_named("odd\nname"), "control character"),
        (_named("c:odd"), "drive letter"),
        (_named("u\u0308mlaut"), "is there twice"),
    ],
)
def test_what_no_host_takes_is_refused(
    folder: Path, make: Callable[[Path], None], says: str
) -> None:
    make(folder / "odd")
    error = refusal(folder)
    assert error.code is Code.BUNDLE_REFUSED
    assert says in error.message


def test_link_to_what_is_left_out(folder: Path) -> None:
    (folder / "x.log").touch()
    (folder / "log").symlink_to("x.log")
    (folder / ".deployignore").write_text("*.log\n")
    assert "'log' is a link to 'x.log', which is missing" in refusal(folder).message


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "gone"):
        assert refusal(tmp_path / name, output=tmp_path / "x.zip").code is Code.BAD_REQUEST


def test_lint_errors_refuse_and_warnings_do_not(folder: Path) -> None:
    told: list[Problem] = []
    (folder / "appspec.yml").write_text(APPSPEC.replace("os: linux", "os: linus"))
    error = refusal(folder, told=told)
    assert error.details == tuple(map(str, told))
    assert "appspec.yml:2:5" in error.details[0]
    told.clear()
    (folder / "appspec.yml").write_text(APPSPEC.replace("/opt/shop", "/opt/shop/app"))
    assert build(folder, told=told).size
    assert [str(each.severity) for each in told] == ["warning"]


def test_all_secrets_are_told_at_once_and_can_be_allowed(folder: Path) -> None:
    key = "-----BEGIN PRIVATE " + "KEY-----\n" + "MIIE" * 10
    (folder / "keys").mkdir()
    (folder / "keys/tls.pem").write_text("\n\n" + key)
    (folder / ".env").write_text("PASSWORD=x\n")
    error = refusal(folder)
    assert [each.split(": error: ")[0] for each in error.details] == [
        f"{folder}/.env", f"{folder}/keys/tls.pem:3:1",
    ]  # fmt: skip
    assert len(refusal(folder, allowed_secrets=("keys",)).details) == 1
    assert "keys/tls.pem" in packed(build(folder, allowed_secrets=("./keys/", ".env")))


def test_secrets_that_are_left_out_are_none(folder: Path) -> None:
    (folder / ".env").write_text("PASSWORD=x\n")
    (folder / ".deployignore").write_text(".env\n")
    assert build(folder).left_out == (".deployignore", ".env")


def test_file_that_changes_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: object, path: str, piece: bytes) -> None:
        if path == "bin/app" and piece:
            with (folder / path).open("a") as file:
                file.write("more")

    monkeypatch.setattr("agent.publish.secrets.Watch.look", look)
    error = refusal(folder)
    assert error.code is Code.BUNDLE_CHANGED
    assert "bin/app" in error.message


# what it is called


def test_application(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build(folder, output=None).path == Path("shop-1.214.zip")
    assert build(folder, output=None, application="other").path == Path("other-1.214.zip")
    (folder / "release.json").write_text('{"version": "1.214", "application": "third"}')
    assert build(folder, output=None).path == Path("third-1.214.zip")
    monkeypatch.chdir(folder)
    assert build(Path(), output=tmp_path / "x.zip").manifest.application == "third"
    assert sorted(path.name for path in tmp_path.glob("*")) == [
        "other-1.214.zip", "shop", "shop-1.214.zip", "third-1.214.zip", "x.zip",
    ]  # fmt: skip


def test_folder_whose_name_is_no_application(folder: Path) -> None:
    error = refusal(folder.rename(folder.with_name("dist")))
    assert "--application NAME" in error.remedy


@pytest.mark.parametrize(
    "more",
    [
        {"version": "1 2"},
        {"version": "../x"},
        {"version": ""},
        {"application": "a/b"},
        {"commit": "a b"},
        {"version": "1.215"},
        {"application": "fourth"},
    ],
)
def test_words_that_cannot_be(folder: Path, more: dict[str, str]) -> None:
    (folder / "release.json").write_text('{"version": "1.214", "application": "third"}')
    assert refusal(folder, **more).code is Code.BAD_REQUEST


def test_release_json_is_replaced(folder: Path) -> None:
    (folder / "release.json").write_text('{"version": "1.214", "note": "ours"}')
    built = build(folder, compatible=bundle.Compatible(os=("debian-12",), arch=("amd64",)))
    with zipfile.ZipFile(built.path) as archive:
        content = json.loads(archive.read("release.json"))
    assert content == {
        "schema": 1,
        "version": "1.214",
        "application": "shop",
        "unpacked": {"bytes": content["unpacked"]["bytes"], "files": 7},
        "compatible": {"os": ["debian-12"], "arch": ["amd64"]},
    }


def test_release_json_that_is_a_folder(folder: Path) -> None:
    (folder / "release.json").mkdir()
    assert "release.json" in refusal(folder).details[0]


# where it goes


@pytest.mark.parametrize("output", ["x.zip", "bin/x.zip", "../shop/x.zip", "../link/x.zip"])
def test_output_in_the_folder(folder: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.with_name("link").symlink_to(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(AgentError) as caught:
        build(Path(), output=Path(output), application="shop")
    assert "lies in the folder itself" in caught.value.message
    assert not list(folder.rglob("*.zip"))


def test_another_bundle_of_that_name(folder: Path) -> None:
    built = build(folder)
    assert build(folder).sha256 == built.sha256
    (folder / "bin/app").write_text("other")
    error = refusal(folder)
    assert (error.code, built.path.stat().st_size) == (Code.CONFLICT, built.size)
    assert build(folder, replace=True).sha256 != built.sha256


def test_output_that_cannot_be_written(folder: Path) -> None:
    error = refusal(folder, output=folder.parent / "gone" / "x.zip")
    assert "gone" in error.message
    assert refusal(folder, output=folder).code is Code.BAD_REQUEST


@pytest.mark.root
def test_full_disk(folder: Path, tmp_path: Path) -> None:
    (folder / "noise").write_bytes(os.urandom(3 * 2**20))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        error = refusal(folder, output=small / "x.zip")
        assert error.code is Code.DISK_FULL
    finally:
        subprocess.run(["umount", small], check=True)


# git


def git(folder: Path, *args: str) -> str:
    environ = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b", "GIT_COMMITTER_DATE": "1700000000 +0530",
    }  # fmt: skip
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environ
    ).stdout.strip()


@pytest.fixture
def repository(folder: Path) -> Path:
    git(folder.parent, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "One")
    return folder


def test_commit_and_time_from_git(repository: Path) -> None:
    (repository / "untracked").touch()
    built = build(repository)
    assert built.manifest.commit == git(repository, "rev-parse", "HEAD")
    assert built.manifest.built_at == 1700000000
    with zipfile.ZipFile(built.path) as archive:
        assert archive.infolist()[0].date_time == (2023, 11, 14, 22, 13, 20)


def test_changed_work_tree_is_dirty(repository: Path) -> None:
    (repository / "bin/app").write_text("changed")
    told: list[Problem] = []
    built = build(repository, told=told)
    assert built.manifest.commit == git(repository, "rev-parse", "HEAD") + "-dirty"
    assert build(repository, commit="abc", replace=True).manifest.commit == "abc"
    assert told == []


def test_source_date_epoch_goes_before_git(repository: Path) -> None:
    built = build(repository, SOURCE_DATE_EPOCH=1600000000)
    assert built.manifest.built_at == 1600000000


@pytest.mark.parametrize("what", ["no commit", "no git", "broken"])
def test_git_that_does_not_answer_is_a_warning(
    folder: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(folder, "init", "-q")
    environ = {"PATH": "/nonexistent"} if what == "no git" else {}
    if what == "broken":
        (folder / ".git/HEAD").write_text("rubbish\n")
    told: list[Problem] = []
    built = build(folder, told=told, **environ)
    assert (built.manifest.commit, built.manifest.built_at) == ("", 0)
    (problem,) = told
    assert "git does not tell the commit: " in problem.message


def test_names_that_are_skipped_by_hosts_are_left_out_here(folder: Path) -> None:
    for name in ("__MACOSX", "._x", ".DS_Store", "sub/._y"):
        assert names.is_skipped(name)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).mkdir() if name == "__MACOSX" else (folder / name).touch()
    assert unpacking.unpack_bundle(build(folder).path).warnings == ()
