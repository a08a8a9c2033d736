"""agentctl bundle as a process: what it prints, for people, for programs and for CI servers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.component import cli_server
from tests.packing import APPSPEC, make_folder

TEAMCITY = {"TEAMCITY_VERSION": "2024.07"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "shop")


def agentctl(where: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """In that working folder, outside of any CI."""
    environ = cli_server.environment(**more)
    quiet = {name for name in environ if name.startswith(("GITHUB_", "TEAMCITY_", "SOURCE_"))}
    for name in quiet - set(more):
        del environ[name]
    return subprocess.run(
        cli_server.command(*args), cwd=where, env={**environ, "PYTHONPATH": str(cli_server.ROOT)},
        capture_output=True, text=True, timeout=9, check=False,
    )  # fmt: skip


def github(tmp_path: Path) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }


def test_people_get_lines(folder: Path) -> None:
    (folder / "a.pyc").touch()
    (folder / "b\n::error::x.pyc").touch()
    done = agentctl(folder.parent, "bundle", "shop", "--version", "1.214", "--verbose")
    digest = hashlib.sha256((folder.parent / "shop-1.214.zip").read_bytes()).hexdigest()
    size = (folder.parent / "shop-1.214.zip").stat().st_size
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "shop 1.214: shop-1.214.zip",
        f"  size:     {size / 1000:.1f} kB ({size} bytes), 7 files of 20.2 kB",
        f"  sha256:   {digest}",
        "  left out: 2 entries",
        "    a.pyc",
        "    'b\\n::error::x.pyc'",
    ]


@pytest.mark.parametrize("more", [{}, TEAMCITY])
def test_json_is_all_of_stdout(folder: Path, more: dict[str, str]) -> None:
    spec = APPSPEC.replace("/opt/shop", "/opt/shop/app")
    (folder / "appspec.yml").write_text(spec)
    done = agentctl(
        folder.parent, "bundle", "shop", "--version", "1", "--commit", "abc", "--json",
        SOURCE_DATE_EPOCH="1700000000", **more,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["problems"].pop()["severity"] == "warning"
    path = folder.parent / "shop-1.zip"
    assert answer == {
        "schema": 1,
        "path": "shop-1.zip",
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "application": "shop",
        "version": "1",
        "commit": "abc",
        "built_at": 1700000000.0,
        "unpacked": answer["unpacked"],
        "left_out": [],
        "problems": [],
    }


@pytest.mark.slow
def test_errors(folder: Path) -> None:
    (folder / ".env").write_text("PASSWORD=x\n")
    done = agentctl(folder.parent, "bundle", "shop", "--version", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "agentctl: cannot bundle shop: it has 1 error [bundle-refused]" in done.stderr
    assert "| shop/.env: error: looks like" in done.stderr
    as_json = agentctl(folder.parent, "bundle", "shop", "--version", "1", "--json")
    assert json.loads(as_json.stdout)["error"]["code"] == "bundle-refused"
    assert agentctl(folder.parent, "bundle", "gone", "--version", "1").returncode == 2
    assert agentctl(folder.parent, "bundle", "shop").returncode == 2
    assert os.listdir(folder.parent) == ["shop"]


def test_everything_that_can_be_said(folder: Path, tmp_path: Path) -> None:
    (folder / ".env").write_text("PASSWORD=x\n")
    (tmp_path / "out.zip").touch()
    done = agentctl(
        tmp_path, "bundle", "shop", "--version", "1", "--application", "other",
        "--output", "out.zip", "--allow-secrets", ".env", "--force",
        "--compatible-os", "debian-12", "--compatible-os", "debian-13",
        "--compatible-arch", "amd64",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = subprocess.run(
        ["unzip", "-p", "out.zip", "release.json"], cwd=tmp_path, check=True, capture_output=True
    )
    content = json.loads(shown.stdout)
    assert content["application"] == "other"
    assert content["compatible"] == {"os": ["debian-12", "debian-13"], "arch": ["amd64"]}


@pytest.mark.slow
def test_teamcity_is_told(folder: Path) -> None:
    done = agentctl(folder.parent, "bundle", "shop", "--version", "1", **TEAMCITY)
    lines = done.stdout.splitlines()
    digest = hashlib.sha256((folder.parent / "shop-1.zip").read_bytes()).hexdigest()
    assert lines[0] == "##teamcity[blockOpened name='agentctl bundle shop']"
    assert f"##teamcity[setParameter name='deploy.digest' value='{digest}']" in lines
    assert lines[-1] == "##teamcity[blockClosed name='agentctl bundle shop']"
    (folder / "appspec.yml").unlink()
    done = agentctl(folder.parent, "bundle", "shop", "--version", "1", **TEAMCITY)
    assert done.stdout.count("##teamcity[buildProblem ") == 1
    assert "appspec.yml in its root" in done.stdout


def test_github_is_told(folder: Path, tmp_path: Path) -> None:
    done = agentctl(tmp_path, "bundle", "shop", "--version", "1", **github(tmp_path))
    assert done.stdout.startswith("::group::agentctl bundle shop\n")
    written = (tmp_path / "output").read_text().splitlines()
    assert f"{tmp_path}/shop-1.zip" in written
    assert hashlib.sha256((tmp_path / "shop-1.zip").read_bytes()).hexdigest() in written
    assert "| version | 1 |" in (tmp_path / "summary").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["bundle", "shop", "--version", "1"], ["lint", "shop"]])
def test_github_shows_problems_at_their_lines(
    folder: Path, tmp_path: Path, command: list[str]
) -> None:
    (folder / "appspec.yml").write_text(APPSPEC.replace("bin/app", "bin/gone"))
    done = agentctl(tmp_path, *command, **github(tmp_path))
    assert done.returncode == 1
    assert "::error file=shop/appspec.yml,line=4,col=14::source: bin/gone is not" in done.stdout
    as_json = agentctl(tmp_path, *command, "--json", **github(tmp_path))
    assert json.loads(as_json.stdout)["schema"] == 1
    assert "::error file=shop/appspec.yml,line=4,col=14::source: " in as_json.stderr


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_agent_deploys_it(tmp_path: Path, state_dir: Path) -> None:
    base = state_dir
    folder = tmp_path / "shop"
    (folder / "bin").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "appspec.yml").write_text(
        "version: 0.0\nos: linux\nfiles:\n"
        f"  - {{source: bin, destination: {base}/opt/shop}}\n"
        "hooks:\n  AfterInstall:\n    - location: scripts/note\n"
    )
    (folder / "bin/app").write_text("#!/bin/sh\n")
    (folder / "bin/app").chmod(0o755)
    (folder / "bin/link").symlink_to("app")
    (folder / "scripts/note").write_text(f"#!/bin/sh\necho $REVISION_VERSION >{base}/noted\n")
    (folder / "scripts/note").chmod(0o755)
    assert agentctl(tmp_path, "bundle", "shop", "--version", "1.214").returncode == 0
    config = base / "agent.yaml"
    config.write_text(f"state_dir: {base}/state\nrun_dir: {base}/s\n")
    done = subprocess.run(
        cli_server.command(
            "deploy", str(tmp_path / "shop-1.214.zip"), "--foreground", "--config", str(config)
        ),
        env=cli_server.environment(TMPDIR=str(base)),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shop 1.214 succeeded" in done.stdout
    assert (base / "noted").read_text() == "1.214\n"
    assert os.access(base / "opt/shop/app", os.X_OK)
    assert os.readlink(base / "opt/shop/link") == "app"
