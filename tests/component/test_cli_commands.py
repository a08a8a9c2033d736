"""Every command of agentctl as a process against a real server: what it asks, says, ends with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component import cli_server
from tests.component.cli_server import ApiServer, Raw, agentctl, failure, ok

READING = {
    "status": ("GET", "/v1/status", cli_server.status(cli_server.application())),
    "history": ("GET", "/v1/deployments", ok(deployments=[cli_server.deployment()])[1]),
    "version": (
        "GET",
        "/v1/version",
        ok(version="0.1.0", pid=42, started_at=1000.0, state_dir="/var/lib/x")[1],
    ),
}
PLAN = {
    "application": "go-service",
    "version": "1.215",
    "refused": False,
    "counts": {"add": 2, "replace": 1, "keep": 0},
    "bytes": 12_300_000,
    "changes": [
        {"action": "add", "path": "/opt/go/new", "kind": "file", "detail": ""},
        {"action": "replace", "path": "/opt/go/old", "kind": "file", "detail": "copy"},
    ],
    "truncated": 7,
    "conflicts": [],
    "problems": [],
    "warnings": ["hook scripts/x.sh is not executable"],
    "space": [
        {
            "mount": "/",
            "needed_bytes": 12_300_000,
            "free_bytes": 5_000_000_000,
            "needed_inodes": 3,
            "free_inodes": 1000,
        }
    ],
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with cli_server.serving(tmp_path) as server:
        yield server


def ask(api: ApiServer, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return agentctl(*args, DEPLOY_AGENT_SOCKET=api.socket, **more)


@pytest.mark.parametrize("command", READING)
def test_json_gives_the_answer_as_it_came(api: ApiServer, command: str) -> None:
    method, path, body = READING[command]
    api.on(method, path, (200, body))
    done = ask(api, command, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer["schema"] == 1
    assert body.items() <= answer.items()


@pytest.mark.parametrize("command", READING)
def test_people_get_lines(api: ApiServer, command: str) -> None:
    method, path, body = READING[command]
    api.on(method, path, (200, body))
    done = ask(api, command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.1.0" in done.stdout or "go-service" in done.stdout
    assert "\x1b" not in done.stdout


def test_status_of_one_application(api: ApiServer) -> None:
    api.on("GET", "/v1/status", (200, cli_server.status(cli_server.application())))
    assert ask(api, "status", "go service/ü").returncode == 0
    assert api.requests[0].query == {"application": "go service/ü"}


def test_text_that_the_terminal_cannot_spell(api: ApiServer) -> None:
    history = ok(deployments=[cli_server.deployment(requested_by="bjørn")])
    api.on("GET", "/v1/deployments", history)
    done = ask(api, "history", os.fsdecode(b"\xff"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bj\\xf8rn" in done.stdout


def test_status_exit_code_tells_the_condition(api: ApiServer) -> None:
    last = cli_server.deployment("rolled_back", failure=cli_server.cause())
    api.on("GET", "/v1/status", (200, cli_server.status(cli_server.application(last=last))))
    assert ask(api, "status").returncode == 152
    assert ask(api, "status", "--json").returncode == 152


def test_status_without_an_agent(tmp_path: Path) -> None:
    done = agentctl("--socket", str(tmp_path / "none"), "status")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot reach deploy-agent" in done.stderr
    assert "systemctl start deploy-agent" in done.stderr
    assert "--foreground" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("drain", "--reason", "disk"),
        ("undrain",),
        ("hold", "--reason", "disk"),
        ("unhold",),
        ("abort", "d-7K3M9QX2P"),
        ("version",),
    ],
)
def test_what_needs_an_agent_names_no_way_without(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = agentctl("--socket", str(tmp_path / "none"), *command)
    assert "systemctl start deploy-agent" in done.stderr
    assert "--foreground" not in done.stderr


def test_socket_that_nobody_listens_on_any_more(tmp_path: Path) -> None:
    with cli_server.serving(tmp_path) as server:
        path = server.socket
    assert os.path.exists(path)
    assert agentctl("status", "--socket", path).returncode == 3
    assert agentctl("deploy", "x.zip", "--socket", path).returncode == 7


def test_status_error_as_json(tmp_path: Path) -> None:
    done = agentctl("status", "--json", "--socket", str(tmp_path / "none"))
    answer = json.loads(done.stdout)
    assert done.returncode == 3
    assert answer["schema"] == 1
    assert answer["error"]["code"] == "agent-unreachable"
    assert answer["error"]["remedy"]


def test_status_of_an_unknown_application(api: ApiServer) -> None:
    details = ["known here: go-service"]
    body = failure("not-found", "cannot find application 'x'", details=details)
    api.on("GET", "/v1/status", (404, body))
    done = ask(api, "status", "x")
    assert done.returncode == 4
    assert "[not-found]" in done.stderr
    assert details[0] in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        Raw(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        Raw(b"HTTP/1.0 200 OK\r\n\r\n<html>"),
        Raw(b"HTTP/1.0 200 OK\r\n\r\n\xff\xfe"),
        (200, {**cli_server.status(), "schema": 2}),
        (200, {"applications": []}),
        (200, {"schema": 1}),
        (200, {"schema": 1, "hold": None, "applications": [{"application": "x"}]}),
        (500, {"schema": 1, "error": "what?"}),
        (500, failure("a-code-of-next-year", "cannot do it")),
    ],
)
def test_status_of_an_agent_that_talks_rubbish(api: ApiServer, answer: cli_server.Answer) -> None:
    api.on("GET", "/v1/status", answer)
    done = ask(api, "status")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("agentctl: ")
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.parametrize(
    "octets", [b"", b"HTTP/1.0 200 OK\r\n", b'HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{"a']
)
def test_status_of_an_agent_that_dies_while_it_answers(api: ApiServer, octets: bytes) -> None:
    api.on("GET", "/v1/status", Raw(octets))
    done = ask(api, "status")
    assert done.returncode == 3
    assert "journalctl -u deploy-agent" in done.stderr


@pytest.mark.root
def test_socket_without_permission(tmp_path: Path) -> None:
    with cli_server.serving(tmp_path) as server:
        os.chmod(server.socket, 0o600)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        for command, code in (("status", 4), ("unhold", 4)):
            done = subprocess.run(
                cli_server.command(command, "--socket", server.socket),
                env=cli_server.environment(HOME="/"),
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                text=True,
                timeout=9,
                check=False,
            )
            assert done.returncode == code
            assert "you may not open" in done.stderr


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("not-permitted", 403, 4),
        ("held", 409, 9),
        ("conflict", 409, 1),
        ("bad-request", 400, 2),
        ("bundle-missing", 404, 1),
        ("internal", 500, 1),
    ],
)
def test_refusals(api: ApiServer, code: str, status: int, exit_code: int) -> None:
    body = failure(code, "cannot \x1b[31mdo it", remedy="Do this", where="here", details=["a", "b"])
    api.on("POST", "/v1/deployments", (status, body))
    done = ask(api, "deploy", "x.zip")
    assert done.returncode == exit_code
    assert done.stderr.splitlines() == [
        f"agentctl: cannot do it [{code}]",
        "  where: here",
        "    | a",
        "    | b",
        "  next:  Do this",
    ]


def test_plan(api: ApiServer, tmp_path: Path) -> None:
    api.on("POST", "/v1/plan", ok(plan=PLAN))
    done = ask(api, "plan", str(tmp_path / "x.zip"), "--application", "go-service")
    assert done.returncode == 0
    assert api.requests[0].body == {
        "bundle": str(tmp_path / "x.zip"),
        "application": "go-service",
    }
    assert done.stdout.splitlines() == [
        "go-service 1.215 can be deployed: add 2, replace 1; 12.3 MB to copy",
        "  warning   hook scripts/x.sh is not executable",
        "  add       /opt/go/new",
        "  replace   /opt/go/old  (copy)",
        "  and 7 more",
        "  space     /: needs 12.3 MB of 5.0 GB free, 3 of 1000 inodes",
    ]


def test_refused_plan(api: ApiServer) -> None:
    conflict = {"path": "/etc/x", "owner": "other", "detail": "it owns that file"}
    plan = {**PLAN, "refused": True, "conflicts": [conflict], "problems": ["no user deploy"]}
    api.on("POST", "/v1/plan", ok(plan=plan))
    done = ask(api, "plan", "x.zip")
    assert done.returncode == 1
    assert "would be refused" in done.stdout
    assert "conflict  /etc/x (other): it owns that file" in done.stdout
    assert "problem   no user deploy" in done.stdout
    assert json.loads(ask(api, "plan", "x.zip", "--json").stdout)["plan"] == plan


def test_bundle_paths_are_made_absolute(api: ApiServer) -> None:
    api.on("POST", "/v1/plan", ok(plan=PLAN))
    ask(api, "plan", "../x.zip")
    body = api.requests[0].body
    assert body is not None
    assert body["bundle"] == os.path.abspath("../x.zip")


def test_history(api: ApiServer) -> None:
    bad = cli_server.deployment("rolled_back", failure=cli_server.cause(), version="1.216")
    running = cli_server.deployment(None, version="1.217", started_at=0.0)
    del running["steps"]
    api.on("GET", "/v1/deployments", ok(deployments=[running, bad, cli_server.deployment()]))
    done = ask(api, "history", "go-service", "--limit", "5")
    assert api.requests[0].query == {"application": "go-service", "limit": "5"}
    first, *rows = done.stdout.splitlines()
    assert first.startswith("id ")
    assert "1.217" in rows[0]
    assert "doing start" in rows[0]
    assert "rolled back" in rows[1]
    assert "[hook-failed] cannot run hook" in rows[1]
    assert "succeeded" in rows[2]


def test_empty_history(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments", ok(deployments=[]))
    assert "Nothing was deployed here yet" in ask(api, "history").stdout


def test_logs(api: ApiServer) -> None:
    lines = [{"line": "one"}, {"line": "\x1b]0;owned\x07two \x1b[31mred"}]
    api.on("GET", "/v1/deployments/last/log", lines)
    done = ask(api, "logs")
    assert (done.returncode, done.stdout) == (0, "one\ntwo red\n")
    as_json = [json.loads(line) for line in ask(api, "logs", "--json").stdout.splitlines()]
    assert as_json == [{"schema": 1, **line} for line in lines]


def test_logs_of_one_deployment_followed(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/last", ok(deployment=cli_server.deployment()))
    api.on("GET", "/v1/deployments/d-7K3M9QX2P", ok(deployment=cli_server.deployment()))
    api.on("GET", "/v1/deployments/d-7K3M9QX2P/log", [{"line": "one"}])
    assert ask(api, "logs", "-f").stdout == "one\n"
    assert api.requests[1].query == {"follow": "1"}


@pytest.mark.slow
def test_log_is_followed_across_a_restart_of_the_agent(api: ApiServer) -> None:
    asked: list[str] = []

    def log(request: cli_server.Request) -> cli_server.Answer:
        asked.append(request.query.get("skip", "0"))
        match len(asked):
            case 1:
                return [{"line": "one"}, {"line": "two"}]
            case 2:
                return Raw(b"")  # it listens already, and ends again
            case _:
                return [{"line": "three"}]

    def view(_: cli_server.Request) -> cli_server.Answer:
        return ok(deployment=cli_server.deployment("succeeded" if len(asked) > 2 else None))

    api.on("GET", "/v1/deployments/last", view)
    api.on("GET", "/v1/deployments/d-7K3M9QX2P", view)
    api.on("GET", "/v1/deployments/d-7K3M9QX2P/log", log)
    done = ask(api, "logs", "-f")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\nthree\n")
    assert asked == ["0", "2", "2"]
    assert done.stderr.count("the agent went away") == 1


def test_log_that_is_cut_off_says_so(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/last/log", Raw(b'HTTP/1.0 200 OK\r\n\r\n{"line": "a"}\n{"li'))
    done = ask(api, "logs")
    assert (done.returncode, done.stdout) == (7, "a\n")
    assert "ended in the middle of a line" in done.stderr


def test_an_id_stays_one_part_of_the_path(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/..%2F..%2Fx%3Fy/log", [{"line": "one"}])
    assert ask(api, "logs", "../../x?y").stdout == "one\n"


def test_closed_pipe_ends_quietly(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/last/log", ({"line": "x" * 1000} for _ in range(10_000)))
    agentctl_process = subprocess.Popen(
        cli_server.command("logs", "--socket", api.socket),
        env=cli_server.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with agentctl_process as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_pipe_that_nobody_reads(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/last/log", [{"line": "x"}])
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        cli_server.command("logs", "--socket", api.socket),
        env=cli_server.environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_full_disk_under_the_output(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments/last/log", [{"line": "x"}])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            cli_server.command("logs", "--socket", api.socket),
            env=cli_server.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "agentctl: cannot go on: [Errno 28] No space left on device\n"


def test_abort(api: ApiServer) -> None:
    aborting = cli_server.deployment(None, aborting=True)
    api.on("POST", "/v1/deployments/last/abort", (202, ok(deployment=aborting)[1]))
    done = ask(api, "abort")
    assert done.returncode == 0
    assert "aborting start" in done.stdout
    assert api.requests[0].body == {"now": False}
    api.on("POST", "/v1/deployments/d-X/abort", (409, failure("conflict", "it has ended")))
    assert ask(api, "abort", "d-X", "--now").returncode == 1
    assert api.requests[1].body == {"now": True}


def test_hold_and_unhold(api: ApiServer) -> None:
    api.on("PUT", "/v1/hold", ok(hold={}))
    lifted = {"reason": "ever", "by": "anna", "since": 1.0, "until": None}
    api.on("DELETE", "/v1/hold", ok(hold=None, lifted=lifted))
    assert "held until" in ask(api, "hold", "--reason", "disk swap", "--for", "2h").stdout
    assert ask(api, "hold", "--reason", "ever").stdout.startswith("held: ever;")
    assert ask(api, "unhold").stdout.startswith("the hold of anna is lifted (ever): ")
    api.on("DELETE", "/v1/hold", ok(hold=None, lifted=None))
    assert ask(api, "unhold").stdout == "there was no hold: deployments may begin\n"
    assert [(request.method, request.body) for request in api.requests] == [
        ("PUT", {"reason": "disk swap", "for_seconds": 7200.0}),
        ("PUT", {"reason": "ever", "for_seconds": None}),
        ("DELETE", None),
        ("DELETE", None),
    ]


def test_version_without_an_agent(tmp_path: Path) -> None:
    done = agentctl("version", "--socket", str(tmp_path / "none"))
    assert done.returncode == 7
    assert done.stdout.startswith("agentctl 0.")


def test_a_defect_shows_no_traceback_unless_asked(api: ApiServer) -> None:
    api.on("GET", "/v1/deployments", ok(deployments=[{"id": "d-X"}]))
    done = ask(api, "history")
    assert done.returncode == 1
    assert "internal error" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in ask(api, "history", DEPLOY_AGENT_DEBUG="1").stderr


def test_drain_and_undrain(api: ApiServer) -> None:
    drain = {"application": "web", "reason": "disk", "by": "ann", "since": 1.0, "until": None}
    api.on("PUT", "/v1/drain", ok(drain=drain, problem=""))
    api.on("DELETE", "/v1/drain", ok(drain=None, application="web", problem="Consul is away"))
    done = ask(api, "drain", "web", "--reason", "disk", "--for", "2h")
    assert (done.returncode, done.stdout) == (0, "web drained: disk; to end it: agentctl undrain\n")
    done = ask(api, "undrain")
    assert done.stdout == "web not let in yet\n  the agent goes on trying: Consul is away\n"
    assert done.returncode == 1  # nobody is to reboot a host that takes traffic
    assert [(request.method, request.body) for request in api.requests] == [
        ("PUT", {"application": "web", "reason": "disk", "for_seconds": 7200.0}),
        ("DELETE", {}),
    ]
