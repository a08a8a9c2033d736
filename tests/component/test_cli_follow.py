"""How agentctl follows a deployment: outcomes, a restart of the agent, Ctrl-C, time limits."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import waiting
from tests.component import cli_server
from tests.component.cli_server import ApiServer, Body, agentctl, cause, deployment, failure, step

EVENTS = "/v1/deployments/d-7K3M9QX2P/events"
BEGUN = deployment(None, status="pending", step=None, steps=[], started_at=0.0)
FETCHING = deployment(None, step="fetch", steps=[step("fetch", "doing")])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with cli_server.serving(tmp_path) as server:
        server.on("POST", "/v1/deployments", (202, {"schema": 1, "deployment": BEGUN}))
        yield server


def events(*deployments: Body) -> list[Body]:
    return [{"deployment": each} for each in deployments]


def deploy(api: ApiServer, *args: str) -> subprocess.CompletedProcess[str]:
    return agentctl("deploy", "/srv/x.zip", *args, DEPLOY_AGENT_SOCKET=api.socket)


def start(api: ApiServer, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        cli_server.command("deploy", "/srv/x.zip", "--socket", api.socket, *args),
        env=cli_server.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def endless(gate: threading.Event, *deployments: Body) -> Iterator[Body]:
    """These events, then silence until the gate opens."""
    yield from events(*deployments)
    gate.wait(9)


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        ("succeeded", 0, "go-service 1.215 succeeded after 4.20 s (before: 1.214)"),
        ("failed", 1, "failed after 4.20 s, nothing was touched: 1.214 serves"),
        ("rolled_back", 1, "was rolled back after 4.20 s: 1.214 serves"),
        ("superseded", 5, "was superseded by a newer revision"),
        ("aborted", 6, "was aborted after 4.20 s: 1.214 serves"),
        ("inconsistent", 8, "ended inconsistent after 4.20 s"),
    ],
)
def test_outcomes(api: ApiServer, outcome: str, code: int, said: str) -> None:
    ended = deployment(outcome, failure=None if outcome == "succeeded" else cause())
    api.on("GET", EVENTS, events(BEGUN, FETCHING, ended))
    done = deploy(api)
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
    for part in (cause()["message"], cause()["where"], cause()["next"], *cause()["evidence"]):
        assert (part in done.stdout) is (outcome != "succeeded")


def test_what_is_asked_for(api: ApiServer) -> None:
    api.on("GET", EVENTS, events(deployment()))
    deploy(api, "--application", "a", "--version", "1", "--group", "g", "--force")
    assert api.requests[0].body == {
        "bundle": "/srv/x.zip",
        "application": "a",
        "version": "1",
        "group": "g",
        "force": True,
    }


@pytest.mark.parametrize(
    ("args", "path", "body"),
    [
        (["rollback"], "/v1/rollback", {}),
        (["rollback", "a", "--to", "1.2"], "/v1/rollback", {"application": "a", "to": "1.2"}),
        (["retry"], "/v1/retry", {}),
        (["retry", "a"], "/v1/retry", {"application": "a"}),
    ],
)
def test_rollback_and_retry_follow_as_well(
    api: ApiServer, args: list[str], path: str, body: Body
) -> None:
    api.on("POST", path, (202, {"schema": 1, "deployment": BEGUN}))
    api.on("GET", EVENTS, events(deployment()))
    done = agentctl(*args, DEPLOY_AGENT_SOCKET=api.socket)
    assert done.returncode == 0
    assert "succeeded" in done.stdout
    assert api.asked("POST")[0].body == body


def test_plain_lines_tell_each_change_once(api: ApiServer) -> None:
    installed = step("install", "done", note="2 files")
    undone = step("install", "undone", undo_seconds=0.2)
    broken = step("start", "failed", seconds=1.5, failure=cause())
    start_undone = {**broken, "status": "undone", "undo_seconds": 0.4}
    undoing = deployment(None, steps=[step("fetch"), installed, {**broken, "status": "undoing"}])
    api.on(
        "GET",
        EVENTS,
        events(
            FETCHING,
            FETCHING,
            deployment(None, steps=[step("fetch"), installed]),
            deployment(None, steps=[step("fetch"), installed, broken]),
            undoing,
            deployment(
                None, steps=[step("fetch"), {**installed, "status": "undoing"}, start_undone]
            ),
            deployment("rolled_back", steps=[{**undone, "name": "fetch"}, undone, start_undone]),
        ),
    )
    lines = deploy(api).stdout.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines[:9])
    assert [line[9:] for line in lines[:9]] == [
        "fetch: doing",
        "fetch: done in 0.31 s",
        "install: done in 0.31 s: 2 files",
        "start: failed: cannot run hook scripts/start.sh: exit code 7",
        "start: undoing",
        "start: undone in 0.40 s",
        "install: undoing",
        "install: undone in 0.20 s",
        "fetch: undone in 0.20 s",
    ]


def test_foreign_text_cannot_command_the_terminal(api: ApiServer) -> None:
    dirty = "\x1b]0;owned\x07\x1b[2Jclean"
    failed = cause(message=dirty, where=dirty, evidence=[dirty], next=dirty)
    api.on(
        "GET",
        EVENTS,
        events(deployment("failed", failure=failed, steps=[step("fetch", note=dirty)])),
    )
    shown = deploy(api).stdout
    assert "\x1b" not in shown
    assert shown.count("clean") == 5


def test_json_ends_with_one_object(api: ApiServer) -> None:
    api.on("GET", EVENTS, events(FETCHING, deployment()))
    done = deploy(api, "--json")
    assert json.loads(done.stdout) == {"schema": 1, "deployment": deployment()}
    assert "fetch: doing" in done.stderr


def test_detach_does_not_wait(api: ApiServer) -> None:
    done = deploy(api, "--detach")
    assert done.returncode == 0
    assert "agentctl logs -f d-7K3M9QX2P" in done.stdout
    assert json.loads(deploy(api, "--detach", "--json").stdout)["deployment"] == BEGUN
    assert not api.asked("GET")


def test_timeout_ends_the_wait_only(api: ApiServer) -> None:
    gate = threading.Event()
    api.on("GET", EVENTS, lambda _: endless(gate, FETCHING))
    done = deploy(api, "--timeout", "0.3s")
    gate.set()
    assert done.returncode == 10
    assert "it goes on as d-7K3M9QX2P" in done.stdout
    assert [request.path for request in api.asked("POST")] == ["/v1/deployments"]


@pytest.mark.slow
def test_timeout_holds_while_the_agent_is_away(api: ApiServer) -> None:
    api.on("GET", EVENTS, cli_server.Raw(b""))
    assert deploy(api, "--timeout", "0.5s").returncode == 10


@pytest.mark.slow
def test_timeout_holds_while_events_pour_in(api: ApiServer) -> None:
    api.on("GET", EVENTS, lambda _: itertools.repeat({"deployment": FETCHING}))
    assert deploy(api, "--timeout", "0.5s").returncode == 10


@pytest.mark.slow
def test_restart_of_the_agent_is_waited_for(api: ApiServer) -> None:
    answers = iter([events(FETCHING), [], cli_server.Raw(b""), events(deployment())])
    api.on("GET", EVENTS, lambda _: next(answers))
    done = deploy(api)
    assert done.returncode == 0
    assert done.stdout.count("the agent went away") == 1


def test_agent_that_forgot_the_deployment_is_not_waited_for(api: ApiServer) -> None:
    answers = iter([events(FETCHING), (404, failure("not-found", "cannot find it"))])
    api.on("GET", EVENTS, lambda _: next(answers))
    done = deploy(api)
    assert done.returncode == 1
    assert "[not-found]" in done.stderr


def test_line_that_was_cut_is_not_taken_for_an_answer(api: ApiServer) -> None:
    cut = cli_server.Raw(b'HTTP/1.0 200 OK\r\n\r\n{"deployment": {"outcome": "succ')
    answers = iter([cut, events(deployment("rolled_back"))])
    api.on("GET", EVENTS, lambda _: next(answers))
    assert deploy(api).returncode == 1


def test_ctrl_c_leaves_the_deployment_alone_and_says_so(api: ApiServer) -> None:
    gate = threading.Event()
    api.on("GET", EVENTS, lambda _: endless(gate, FETCHING))
    with start(api) as running:
        assert running.stdout is not None
        assert "fetch: doing" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=9)
    gate.set()
    assert running.returncode == 130
    assert "d-7K3M9QX2P goes on in the agent" in said
    assert "agentctl abort d-7K3M9QX2P" in said
    assert "Traceback" not in said
    assert [request.path for request in api.asked("POST")] == ["/v1/deployments"]


class Terminal:
    """agentctl on a terminal of its own; `shown` is everything that it wrote there."""

    def __init__(self, *args: str, **more: str) -> None:
        own, its = pty.openpty()
        self._own = own
        self._process = subprocess.Popen(
            cli_server.command(*args),
            env=cli_server.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        self.shown = b""

    def read(self, until: bytes) -> None:
        """Read until these bytes were shown."""

        def is_shown() -> bool:
            self.shown += self._read()
            return until in self.shown

        waiting.wait_until(is_shown, 8)

    def end(self) -> int:
        """Read to the end; the exit code."""
        while octets := self._read():
            self.shown += octets
        os.close(self._own)
        return self._process.wait(9)

    def _read(self) -> bytes:
        try:
            return os.read(self._own, 65536)
        except OSError:  # EIO: the other side is closed
            return b""


INSTALLING = deployment(
    None,
    step="install",
    steps=[step("fetch"), step("install", "doing")],
    progress={"step": "install", "done": 20_000, "total": 50_000},
)


def test_bar_on_a_terminal(api: ApiServer) -> None:
    gate = threading.Event()

    def stream() -> Iterator[Body]:
        yield from endless(gate, INSTALLING)
        yield from events(deployment())

    api.on("GET", EVENTS, lambda _: stream())
    terminal = Terminal("deploy", "x.zip", "--socket", api.socket, TERM="xterm")
    terminal.read(b"40%")
    gate.set()
    assert terminal.end() == 0
    assert b"install" in terminal.shown
    assert b"fetch: done in 0.31 s" in terminal.shown
    assert b"succeeded" in terminal.shown
    assert b"[progress" not in terminal.shown  # rich's markup, seen raw
    assert terminal.shown.rfind(b"\x1b[?25h") > terminal.shown.rfind(b"\x1b[?25l")  # cursor is back


@pytest.mark.parametrize("more", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_no_escape_sequences_where_they_are_not_wanted(
    api: ApiServer, more: dict[str, str]
) -> None:
    api.on("GET", EVENTS, events(INSTALLING, deployment("rolled_back", failure=cause())))
    terminal = Terminal("deploy", "x.zip", "--socket", api.socket, **more)
    assert terminal.end() == 1
    assert b"install: doing" in terminal.shown
    assert b"\x1b" not in terminal.shown


def test_colours_on_a_terminal(api: ApiServer) -> None:
    api.on("GET", "/v1/status", (200, cli_server.status(cli_server.application())))
    terminal = Terminal("status", "--socket", api.socket, TERM="xterm")
    assert terminal.end() == 0
    assert b"\x1b[32mhealthy\x1b[0m" in terminal.shown
