"""What bundles are not made of; what they are called, where they go, and what git says of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.model.appspec import Problem
from agent.model.errors import AgentError, Code
from agent.publish import bundle
from tests.packing import APPSPEC, build, make_folder, packed, refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "shop")


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


@pytest.mark.slow
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
