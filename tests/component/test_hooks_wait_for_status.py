"""The command wait-for-status, as scripts call it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.hook_scene import COMMANDS, Scene
from tests.status_service import GOOD, http_answer, json_answer, status_service

pytestmark = pytest.mark.slow

QUICK = ("--within", "0.3", "--stable-for", "0.2", "--interval", "0.05")


def ask(
    *arguments: str, version: str = "1.216", timeout_seconds: float = 8
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / "wait-for-status", *arguments],
        env={"REVISION_VERSION": version, "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def test_proved_by_version_and_health() -> None:
    with status_service(json_answer(GOOD)) as service:
        done = ask(service.url, *QUICK, "--healthy", "/Database=Good")
        assert (done.returncode, done.stderr) == (0, "")
        assert service.asked >= 3  # it stayed so


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        (
            json_answer({"version": "1.215"}),
            (),
            "reports version '1.215', this revision is '1.216'",
        ),
        (json_answer({}), (), "reports version ''"),
        (json_answer({"version": ["1.216"]}), (), "reports version ''"),
        (json_answer({"version": "1.2161"}), ("--match", "prefix"), "'1.2161'"),
        (json_answer(GOOD), ("--healthy", "/Database=Bad"), "/Database is 'Good', not 'Bad'"),
        (json_answer(GOOD, "503 Busy"), (), "HTTP 503"),
        (json_answer(GOOD, "204 No Content"), (), "HTTP 204"),
        (http_answer(b"", "302 Found", "Location: /elsewhere\r\n"), (), "HTTP 302"),
        (http_answer(b"<html>"), (), "not JSON"),
        (b"nonsense\r\n\r\n", (), "no answer"),
    ],
)
def test_anything_else_is_not_proved(answer: bytes, options: tuple[str, ...], said: str) -> None:
    with status_service(answer) as service:
        done = ask(service.url, *QUICK, *options)
    assert done.returncode == 1
    assert "cannot validate" in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("options", "version"),
    [
        (("--match", "prefix"), "1"),
        (("--pointer", "/Status for SQS queue"), "Healthy"),
        (("--pointer", "off"), ""),
        (("--version", "1.216"), "1.2"),
    ],
)
def test_how_the_version_is_found_and_compared(options: tuple[str, ...], version: str) -> None:
    answer = json_answer({**GOOD, "version": "1-rc2" if version == "1" else "1.216"})
    with status_service(answer) as service:
        assert ask(service.url, *QUICK, *options, version=version).returncode == 0


def test_relapse_begins_the_wait_anew() -> None:
    answers = {2: json_answer(GOOD, "500 Oops")}
    with status_service(lambda n: answers.get(n, json_answer(GOOD))) as service:
        assert ask(service.url, *QUICK).returncode == 0
        assert service.asked >= 5


def test_nobody_listens() -> None:
    assert "no answer" in ask("http://127.0.0.1:9/status", *QUICK).stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("file:///etc/passwd",), ("http://h/", "--healthy", "x"), ("http://h/", "--version", "")],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert ask(*arguments).returncode == 2


def test_help() -> None:
    done = ask("--help")
    assert done.returncode == 0
    assert "REVISION_VERSION" in done.stdout


async def test_it_is_on_the_path_of_hooks(state_dir: Path) -> None:
    scene = Scene(state_dir, "group")
    with status_service(json_answer({"version": "1.2"})) as service:
        await scene.run(f"wait-for-status {service.url} {' '.join(QUICK)}", timeout_seconds=5)
        error = await scene.failure(f"wait-for-status {service.url} --version 9 {' '.join(QUICK)}")
    assert any("'1.2', this revision is '9'" in line for line in error.details)
