"""agentctl lint: folders, archives and single files, and what it prints."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from agent.cli import main
from agent.model.errors import AgentError, Code
from agent.publish import lint

GOOD = """version: 0.0
os: linux
files:
  - {source: bin/app, destination: /opt/go-service}
hooks:
  ApplicationStart:
    - location: scripts/start.sh
"""
FILES = {
    "appspec.yml": GOOD,
    "bin/app": "app",
    "scripts/start.sh": "#!/bin/sh\n",
    "release.json": '{"version": "1.214"}',
}


def write_folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(text.encode())
    return path


def write_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


WRITERS = [write_folder, write_zip, write_tar]


@pytest.fixture(params=WRITERS, ids=["folder", "bundle.zip", "bundle.tgz"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[object, Path]:
    return request.param, tmp_path / "bundle"


def problems(target: tuple[object, Path], files: dict[str, str]) -> list[str]:
    write, path = target
    assert callable(write)
    found = lint.lint(write(path, files))
    return [str(problem).removeprefix(f"{path}/") for problem in found]


def test_a_good_bundle(target: tuple[object, Path]) -> None:
    assert problems(target, FILES) == []


def test_what_the_files_show(target: tuple[object, Path]) -> None:
    files = {
        **FILES,
        "appspec.yml": GOOD.replace("scripts/s", "scripts/S").replace("bin/app", "bin/gone"),
        "release.json": "{}",
    }
    source, location, version = problems(target, files)
    assert source == "appspec.yml:4:14: error: source: bin/gone is not in the bundle"
    assert location.startswith("appspec.yml:7:17: error: location: scripts/Start.sh is not in")
    assert location.endswith("(did you mean scripts/start.sh?)")
    assert version.startswith("release.json: error: cannot use release.json: it has no version")


def test_first_line_that_ends_in_cr_lf(target: tuple[object, Path]) -> None:
    (problem,) = problems(target, {**FILES, "scripts/start.sh": "#!/bin/sh\r\necho\r\n"})
    assert "begins with a #! line that ends in CR LF" in problem


def test_no_appspec(target: tuple[object, Path]) -> None:
    (problem,) = problems(target, {"AppSpec.yml": GOOD, "bin/app": ""})
    assert "has no appspec.yml in its root (Rename AppSpec.yml to appspec.yml)" in problem


def test_errors_of_the_text_come_alone(target: tuple[object, Path]) -> None:
    files = {**FILES, "appspec.yml": GOOD.replace("os: linux", "os: linus")}
    assert problems(target, files) == [
        "appspec.yml:2:5: error: os: must be linux, is 'linus' (did you mean linux?)"
    ]


def test_appspec_yaml_comes_first(target: tuple[object, Path]) -> None:
    (problem, *_) = problems(target, {**FILES, "appspec.yaml": "os: linux\n"})
    assert "appspec.yaml:1:1: error: has no version" in problem


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_one_wrapping_folder_is_left_out(write: object, tmp_path: Path) -> None:
    assert callable(write)
    wrapped = {f"./shop-1.214/{name}": text for name, text in FILES.items()}
    assert lint.lint(write(tmp_path / "a", {**wrapped, "__MACOSX/._x": ""})) == []
    (problem,) = lint.lint(write(tmp_path / "b", {**wrapped, "other": ""}))
    assert "has no appspec.yml in its root" in str(problem)


def test_nothing_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bundle.zip", {**FILES, "../../evil": "", "/abs": ""})
    before = sorted(tmp_path.iterdir())
    assert lint.lint(path) == []
    assert sorted(tmp_path.iterdir()) == before


def test_links_in_a_tar_are_files(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    with tarfile.open(path, "w") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            if name == "scripts/start.sh":
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
            archive.addfile(member, io.BytesIO(text.encode()))
    assert lint.lint(path) == []


@pytest.mark.parametrize("cut", [30, 200, 400])
def test_a_damaged_archive(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "bundle.tgz", {**FILES, "noise": os.urandom(2000).hex()})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(AgentError) as caught:
        lint.lint(path)
    assert caught.value.code is Code.BUNDLE_DAMAGED


def test_single_files(tmp_path: Path) -> None:
    write_folder(
        tmp_path, {"my-appspec.yml": "version: 1\nos: linux\n", "agent.yaml": "stats: 1\n"}
    )
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/x.yaml").write_text("starts: 1\n")
    (problem,) = lint.lint(tmp_path / "my-appspec.yml")
    assert str(problem).startswith(f"{tmp_path}/my-appspec.yml:1:10: error: version: must be 0.0")
    (problem,) = lint.lint(tmp_path / "agent.yaml")
    assert str(problem).startswith(f"{tmp_path}/agent.yaml:1:1: error: stats: unknown key")
    assert lint.lint(tmp_path / "conf.d/x.yaml") == []


# the command


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bundle", FILES)


def test_exit_codes_and_summary(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["lint", str(bundle)]) == 0
    assert capsys.readouterr().out == f"{bundle}: no problems\n"
    (bundle / "appspec.yml").write_text(f"{GOOD}hook: []\n")
    assert main.main(["lint", str(bundle)]) == 0
    assert capsys.readouterr().out.endswith(f"\n{bundle}: 1 warning\n")
    assert main.main(["lint", "--strict", str(bundle)]) == 1
    (bundle / "appspec.yml").write_text("hook: []\n")
    capsys.readouterr()
    assert main.main(["lint", str(bundle)]) == 1
    assert capsys.readouterr().out.endswith(f"\n{bundle}: 2 errors, 1 warning\n")
    assert main.main(["lint", str(bundle / "gone")]) == 2
    assert "cannot lint" in capsys.readouterr().err


def test_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "appspec.yml").write_text(GOOD.replace("Start:", "Strat:"))
    assert main.main(["lint", "--json", str(bundle)]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "problems": [
            {
                "severity": "error",
                "file": f"{bundle}/appspec.yml",
                "line": 6,
                "column": 3,
                "message": "ApplicationStrat: unknown lifecycle event",
                "suggestion": "did you mean ApplicationStart?",
            }
        ],
    }


def test_it_lints_here_by_default(bundle: Path) -> None:
    (bundle / "appspec.yml").write_text(f"{GOOD}hook: []\n")
    command = [sys.executable, "-W", "error", "-m", "agent.cli.main", "lint"]
    environment = {**os.environ, "PYTHONPATH": str(Path(main.__file__).parents[2])}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "appspec.yml:8:1: warning: hook: unknown key, which is ignored (did you mean hooks?)",
        ".: 1 warning",
    ]


def test_names_that_are_no_text_are_printed_harmlessly(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_folder(bundle.parent / "a\x1b[31mb", FILES)
    shutil.copy(bundle / "appspec.yml", bad / "appspec.yml")
    assert main.main(["lint", str(bad)]) == 0
    assert "\x1b" not in capsys.readouterr().out
