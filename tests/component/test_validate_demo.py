"""The example in examples/demo: its bundles, its scripts, and what its service answers."""

from __future__ import annotations

import os
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest

from agent.cli import main as cli_main
from agent.model.appspec import StatusCheck
from agent.system import status_check
from agent.system.http import HttpClient
from agent.system.status_check import StatusAnswer, Verdict
from tests.waiting import wait_until

BUILD = Path(__file__).resolve().parents[2] / "examples/demo/build"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build(folder: Path, name: str, version: str, *options: str, port: int = 8080) -> Path:
    bundle = folder / name
    command = [BUILD, bundle, version, "--folder", folder / "host", "--port", str(port), *options]
    subprocess.run(command, check=True, timeout=10)
    return bundle


def run_script(release: Path, event: str) -> None:
    environment = {"PATH": os.environ["PATH"], "REVISION_VERSION": "1.216"}
    subprocess.run([release / "scripts" / event], check=True, timeout=10, env=environment)


@pytest.mark.slow
def test_the_same_version_gives_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path, "first.zip", "1.214").read_bytes()
    assert build(tmp_path, "second.zip", "1.214").read_bytes() == first
    assert build(tmp_path, "third.zip", "1.215").read_bytes() != first


def test_the_bundle_with_a_unit_is_sound(tmp_path: Path) -> None:
    bundle = tmp_path / "x.zip"
    subprocess.run([BUILD, bundle, "1.216", "--unit"], check=True, timeout=10)
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
        assert "scripts/start" not in names
        assert "ExecStart=/opt/go-service/go-service" in archive.read("go-service.service").decode()
    assert cli_main.main(["lint", str(bundle)]) == 0


def test_a_relative_folder_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [BUILD, tmp_path / "x.zip", "1.214", "--folder", "here"],
        capture_output=True,
        check=False,
        timeout=10,
    )
    assert done.returncode == 2
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "verdict", "reported"),
    [
        ([], Verdict.PROVED, "1.216"),
        (["--broken"], Verdict.UNHEALTHY, "1.216"),
        (["--broken", "version"], Verdict.OTHER_VERSION, "1.215"),
    ],
)
async def test_the_service(
    tmp_path: Path, options: list[str], verdict: Verdict, reported: str
) -> None:
    port = free_port()
    release, installed = tmp_path / "release", tmp_path / "host/opt/go-service"
    with zipfile.ZipFile(build(tmp_path, "x.zip", "1.216", *options, port=port)) as bundle:
        bundle.extractall(release)
        bundle.extract("go-service", installed)
    for path in (*release.glob("scripts/*"), installed / "go-service"):
        path.chmod(0o755)
    run_script(release, "start")
    try:
        run_script(release, "validate")
        wait_until(lambda: is_listening(port))
        answer = await ask(port)
    finally:
        run_script(release, "stop")
    assert (answer.verdict, answer.reported_version) == (verdict, reported)
    assert not is_listening(port)
    run_script(release, "stop")  # nothing runs: no failure


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def ask(port: int) -> StatusAnswer:
    check = StatusCheck(f"http://127.0.0.1:{port}/status", healthy=(("/Database", "Good"),))
    client = HttpClient()
    try:
        return await status_check.ask_once(client, check, "1.216")
    finally:
        await client.close()
