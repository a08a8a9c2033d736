"""The API as a client meets it: who may what, queue, abort, rollback, hold, and bad requests."""

from __future__ import annotations

import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_host import ROOT, AgentHost
from tests.bundles import make_bundle
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

WAITING_HOOK = (
    "#!/bin/sh\ntouch {base}/gate.seen\nwhile [ ! -e {base}/gate ]; do sleep 0.02; done\n"
)


@pytest.fixture
def host(state_dir: Path) -> Iterator[AgentHost]:
    host = AgentHost(state_dir)
    try:
        host.start()
        host.deploy_good(make_bundle(state_dir, "1"))
        yield host
    finally:
        host.clear()


@pytest.fixture(scope="module")
def idle_host() -> Iterator[AgentHost]:
    """One host for all requests that are refused and so change nothing."""
    base = Path(tempfile.mkdtemp(prefix="deploy-agent-test-", dir="/var/tmp"))
    host = AgentHost(base)
    try:
        host.start()
        host.deploy_good(make_bundle(base, "1"))
        yield host
    finally:
        host.clear()
        shutil.rmtree(base)


def refusal(host: AgentHost, method: str, path: str, body: object = None) -> tuple[int, dict]:
    status, answer = host.client.request(method, path, body)
    assert answer["schema"] == 1
    return status, answer["error"]


def begin_waiting(host: AgentHost, version: str = "2") -> str:
    """A deployment that stands in BeforeInstall until <base>/gate is made."""
    bundle = make_bundle(host.base, version, hooks={"BeforeInstall": WAITING_HOOK})
    deployment_id = host.request(bundle)
    host.wait_for_file(host.base / "gate.seen")
    return deployment_id


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "part"),
    [
        ("POST", "/v1/deployments", {}, 400, "absolute path"),
        ("POST", "/v1/deployments", {"bundle": "relative.zip"}, 400, "absolute path"),
        ("POST", "/v1/deployments", {"bundle": "/nowhere.zip"}, 404, "/nowhere.zip"),
        ("POST", "/v1/deployments", {"bundle": "/etc", "application": "../x"}, 400, "../x"),
        ("POST", "/v1/deployments", {"bundel": "/etc"}, 400, "bundel"),
        ("POST", "/v1/deployments", [1], 400, "object"),
        ("GET", "/v1/deployments/d-NOSUCH", None, 404, "d-NOSUCH"),
        ("GET", "/v1/deployments/d-NOSUCH/log", None, 404, "d-NOSUCH"),
        ("GET", "/v1/deployments?limit=many", None, 400, "limit"),
        ("GET", "/v1/nothing", None, 404, "/v1/nothing"),
        ("PUT", "/v1/status", None, 405, "PUT"),
        ("PUT", "/v1/hold", {"reason": " "}, 400, "reason"),
        ("PUT", "/v1/hold", {"reason": "x", "for_seconds": -1}, 400, "for_seconds"),
        ("PUT", "/v1/hold", {"reason": "x", "for_seconds": 1e13}, 400, "for_seconds"),
        ("PUT", "/v1/hold", {"reason": "x", "for_seconds": float("nan")}, 400, "for_seconds"),
        ("PUT", "/v1/hold", {"reason": "x", "for_seconds": True}, 400, "for_seconds"),
        ("POST", "/v1/rollback", {"application": "other"}, 404, "other"),
        ("POST", "/v1/rollback", {"application": "service"}, 404, "no previous"),
        ("POST", "/v1/rollback", {"application": "service", "to": "0.9"}, 404, "0.9"),
        ("POST", "/v1/retry", {"application": "service"}, 409, "not failed"),
        ("POST", "/v1/deployments/last/abort", {}, 409, "ended"),
        ("GET", "/v1/status?application=other", None, 404, "other"),
    ],
)
def test_bad_request_has_one_clear_error(
    idle_host: AgentHost, method: str, path: str, body: object, status: int, part: str
) -> None:
    found, error = refusal(idle_host, method, path, body)
    assert found == status
    assert part in error["message"] + " ".join(error["details"])
    assert error["code"]
    assert error["remedy"]


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("utf-8", b"{nope"),
        ("utf-8", b'{"bundle": "/\xff"}'),
        ("utf-8", b'{"bundle": "/\\udc80"}'),  # half a character, which state cannot keep
        ("utf-16", b"{}x"),
        ("klingon", b"{}"),
        ("base64", b"{}"),
        ("idna", b'{"a": "\xff"}'),
        ("utf-8", b'{"bundle": ' + 100_000 * b"["),
        ("utf-8", b'{"bundle": ' + 5000 * b"9" + b"}"),
    ],
)
def test_body_that_is_no_json(idle_host: AgentHost, charset: str, body: bytes) -> None:
    head = f"POST /v1/plan HTTP/1.0\r\nContent-Type: application/json; charset={charset}\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(idle_host.client.socket_path)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.0 400")
    assert b"not JSON" in answer


@pytest.mark.root
def test_other_users_may_read_and_not_change(host: AgentHost) -> None:
    # imported as root, as the checkout may lie where nobody may not look
    program = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from agent.client import Client
os.setgroups([]); os.setgid(65534); os.setuid(65534)
client = Client(sys.argv[2])
status, seen = client.request("GET", "/v1/status")
log, _ = client.request("GET", "/v1/deployments/last/log")
print(json.dumps([status, seen, log, client.request("PUT", "/v1/hold", {"reason": "x"})]))
"""
    host.base.chmod(0o755)
    host.deploy(make_bundle(host.base, "2", hooks={"AfterInstall": "echo s3cret; exit 1\n"}))
    argv = [sys.executable, "-c", program, str(ROOT), host.client.socket_path]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=20)
    status, seen, log, (refused, answer) = json.loads(done.stdout)
    assert (status, log) == (200, 403)
    assert "s3cret" not in json.dumps(seen)
    assert "s3cret" in json.dumps(host.ask("GET", "/v1/status"))
    failure = seen["applications"][0]["last"]["failure"]
    assert failure["code"] == "hook-failed"
    assert failure["evidence"] == []
    assert refused == 403
    assert answer["error"]["code"] == "not-permitted"
    assert "deploy-agent" in answer["error"]["remedy"]
    assert host.ask("GET", "/v1/status")["hold"] is None


@pytest.mark.root
def test_no_other_user_can_take_all_connections(host: AgentHost) -> None:
    program = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
alive, kept = 0, []
for _ in range(60):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    one.connect(sys.argv[1])
    try:
        one.sendall(b"GET /v1/version HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        answer = one.recv(100)
    except OSError:
        answer = b""
    alive += answer.startswith(b"HTTP/1.1 200")
    kept.append(one)
print(alive, flush=True)
sys.stdin.read()
"""
    host.base.chmod(0o755)
    argv = [sys.executable, "-c", program, host.client.socket_path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert int(other.stdout.readline()) == 32
        assert host.is_answering()
        other.communicate(timeout=10)
    assert host.ask("GET", "/v1/version")["pid"]


def test_removed_socket_comes_back(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")  # it looks at itself three times in this time
    host = AgentHost(state_dir)
    path = host.run_dir / "agent.sock"
    try:
        host.start()
        path.unlink()
        wait_until(host.is_answering, 20)
        assert path.stat().st_mode & 0o777 == 0o666
        shutil.rmtree(host.run_dir)
        wait_until(host.is_answering, 20)
        path.unlink()
        path.write_text("not a socket")
        wait_until(host.is_answering, 20)
        host.stop()
        assert not path.exists()
    finally:
        host.clear()


def test_one_at_a_time_and_a_newer_one_replaces_the_waiting_one(host: AgentHost) -> None:
    first = begin_waiting(host)
    second = host.request(make_bundle(host.base, "3"))
    other = host.request(make_bundle(host.base, "9"), application="another")
    third = host.request(make_bundle(host.base, "4"))
    assert host.deployment(second)["outcome"] == "superseded"
    assert host.deployment(third)["status"] == "pending"
    (host.base / "gate").touch()
    assert host.wait_for_outcome(first)["outcome"] == "succeeded"
    assert host.wait_for_outcome(third)["outcome"] == "succeeded"
    # it wants the files of the first application
    view = host.wait_for_outcome(other)
    assert view["failure"]["code"] == "plan-refused"
    assert host.serving() == "4"


def test_abort_waits_for_the_hook_and_now_does_not(host: AgentHost) -> None:
    before = host.files()
    deployment_id = begin_waiting(host)
    view = host.ask("POST", f"/v1/deployments/{deployment_id}/abort", {})["deployment"]
    assert (view["aborting"], view["step"], view["outcome"]) == (True, "before-install", None)
    view = host.ask("POST", f"/v1/deployments/{deployment_id}/abort", {"now": True})["deployment"]
    view = host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "aborted"
    assert view["failure"]["code"] == "aborted"
    assert host.files() == before
    assert host.serving() == "1"


def test_abort_of_a_waiting_deployment(host: AgentHost) -> None:
    first = begin_waiting(host)
    second = host.request(make_bundle(host.base, "3"))
    host.ask("POST", f"/v1/deployments/{second}/abort", {})
    assert host.deployment(second)["outcome"] == "aborted"
    (host.base / "gate").touch()
    assert host.wait_for_outcome(first)["outcome"] == "succeeded"


def test_abort_of_one_that_is_about_to_begin(host: AgentHost) -> None:
    bundle = make_bundle(host.base, "2")
    for _ in range(3):
        deployment_id = host.request(bundle)
        host.ask("POST", f"/v1/deployments/{deployment_id}/abort", {})
        assert host.wait_for_outcome(deployment_id)["outcome"] == "aborted"
    assert host.serving() == "1"


def test_rollback_with_the_source_gone(host: AgentHost) -> None:
    host.deploy(make_bundle(host.base, "2"))
    host.deploy(make_bundle(host.base, "3"))
    for bundle in (host.base / "bundles").iterdir():
        bundle.unlink()
    answer = host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome(answer["deployment"]["id"])["outcome"] == "succeeded"
    assert host.serving() == "2"
    answer = host.ask("POST", "/v1/rollback", {"application": "service", "to": "1"})
    assert host.wait_for_outcome(answer["deployment"]["id"])["outcome"] == "succeeded"
    assert host.serving() == "1"


def test_rollback_to_a_release_that_the_service_has_written_into(host: AgentHost) -> None:
    host.deploy(make_bundle(host.base, "2"))
    for release in (host.state_dir / "releases").glob("*/app/version"):
        if release.read_text() == "1\n":
            release.write_text("damaged\n")
    answer = host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome(answer["deployment"]["id"])["outcome"] == "succeeded"
    assert host.serving() == "1"


@pytest.mark.parametrize("is_rollback", [True, False])
def test_a_file_of_all_revisions_that_the_service_has_written_into(
    host: AgentHost, *, is_rollback: bool
) -> None:
    """It is one file on the disk, in all releases and where it is installed."""
    host.deploy(make_bundle(host.base, "2"))
    installed = host.base / "app/same"
    installed.write_text("damaged\n")
    assert {path.read_text() for path in (host.state_dir / "releases").glob("*/app/same")} == {
        "damaged\n"
    }
    if is_rollback:
        answer = host.ask("POST", "/v1/rollback", {"application": "service"})
        view = host.wait_for_outcome(answer["deployment"]["id"])
    else:
        view = host.deploy(make_bundle(host.base, "3"))
    assert view["outcome"] == "succeeded"
    assert installed.read_text() == "the same in every version\n"


def test_current_release_that_is_gone_blocks_nothing(host: AgentHost) -> None:
    release = host.ask("GET", "/v1/status")["applications"][0]["current"]["release"]
    shutil.rmtree(host.state_dir / "releases" / release)
    for bundle in (host.state_dir / "bundles").iterdir():
        bundle.unlink()
    view = host.deploy_good(make_bundle(host.base, "2"))
    notes = " ".join(step["note"] for step in view["steps"])
    assert "old revision 1" in notes
    assert host.serving() == "2"


def test_hold_stops_deployments_and_says_why(host: AgentHost) -> None:
    host.ask("PUT", "/v1/hold", {"reason": "audit until noon", "for_seconds": 3600})
    bundle = make_bundle(host.base, "2")
    body = {"bundle": str(bundle), "application": "service"}
    status, error = refusal(host, "POST", "/v1/deployments", body)
    assert (status, error["code"]) == (409, "held")
    assert "audit until noon" in error["message"]
    hold = host.ask("GET", "/v1/status")["hold"]
    assert hold["until"] - hold["since"] == pytest.approx(3600)
    assert host.ask("DELETE", "/v1/hold")["lifted"] == hold
    assert host.ask("DELETE", "/v1/hold")["lifted"] is None
    assert host.deploy(bundle)["outcome"] == "succeeded"


def test_hold_keeps_what_waits_from_beginning_and_lets_a_rollback_pass(host: AgentHost) -> None:
    host.deploy_good(make_bundle(host.base, "2"))
    first = begin_waiting(host, "3")
    other = host.request(make_bundle(host.base, "9"), application="another")
    host.ask("PUT", "/v1/hold", {"reason": "audit"})
    back = host.ask("POST", "/v1/rollback", {"application": "service", "to": "1"})["deployment"]
    (host.base / "gate").touch()
    assert host.wait_for_outcome(first)["outcome"] == "succeeded"
    assert host.wait_for_outcome(back["id"])["outcome"] == "succeeded"
    assert host.deployment(other)["status"] == "pending"
    host.ask("DELETE", "/v1/hold")
    assert host.wait_for_outcome(other)["failure"]["code"] == "plan-refused"


def test_what_waits_begins_when_the_hold_expires(host: AgentHost) -> None:
    first = begin_waiting(host)
    other = host.request(make_bundle(host.base, "9"), application="another")
    host.ask("PUT", "/v1/hold", {"reason": "audit", "for_seconds": 1})
    (host.base / "gate").touch()
    assert host.wait_for_outcome(first)["outcome"] == "succeeded"
    assert host.wait_for_outcome(other)["outcome"] == "failed"


def test_plan_tells_and_touches_nothing(host: AgentHost) -> None:
    before = host.files()
    bundle = make_bundle(host.base, "2")
    plan = host.ask("POST", "/v1/plan", {"bundle": str(bundle), "application": "service"})["plan"]
    changed = {Path(each["path"]).name: each["action"] for each in plan["changes"]}
    assert changed["version"] == "replace"
    assert changed["only-in-2"] == "add"
    assert changed["only-in-1"] == "remove"
    assert plan["counts"]["keep"] >= 1
    assert (plan["refused"], plan["version"]) == (False, "2")
    assert host.files() == before
    assert list((host.state_dir / "plans").iterdir()) == []


def test_mistyped_key_of_the_appspec_is_told_by_plan_and_log(host: AgentHost) -> None:
    bundle = make_bundle(host.base, "2", extra="servces:\n  - name: web\n")
    plan = host.ask("POST", "/v1/plan", {"bundle": str(bundle), "application": "service"})["plan"]
    (warning,) = plan["warnings"]
    assert "servces: unknown key" in warning
    assert "services" in warning.partition("unknown key")[2]
    host.deploy_good(bundle)
    said = [line["line"] for line in host.client.stream("/v1/deployments/last/log")]
    assert len([line for line in said if "warning: " in line and warning in line]) == 1
    steps = {each["name"]: each["note"] for each in host.deployment()["steps"]}
    assert "1 warning" in steps["plan"]


def test_log_of_a_deployment_can_be_followed(host: AgentHost) -> None:
    deployment_id = begin_waiting(host)
    path = f"/v1/deployments/{deployment_id}/log"
    stream = host.client.stream(f"{path}?follow=1")
    first = next(stream)["line"]
    (host.base / "gate").touch()
    followed = [first, *(each["line"] for each in stream)]
    assert any("committed" in line for line in followed)
    whole = [each["line"] for each in host.client.stream(path)]
    assert whole == followed


def test_stop_hook_of_the_old_revision_that_fails_blocks_nothing(host: AgentHost) -> None:
    """P1: the old revision's ApplicationStop cannot block the new one; it is named."""
    host.deploy(make_bundle(host.base, "2", hooks={"ApplicationStop": "#!/bin/sh\nexit 1\n"}))
    view = host.deploy(make_bundle(host.base, "3"))
    assert view["outcome"] == "succeeded"
    note = next(step["note"] for step in view["steps"] if step["name"] == "stop")
    assert "old revision 2" in note


@pytest.mark.parametrize("what", ["events", "log?follow=1"])
def test_who_follows_does_not_keep_the_agent_from_ending(host: AgentHost, what: str) -> None:
    name = begin_waiting(host)
    lines = host.client.stream(f"/v1/deployments/{name}/{what}")
    assert next(lines)
    host.terminate()
    (host.base / "gate").touch()
    started = time.monotonic()
    assert host.wait_for_end() == 0
    assert time.monotonic() - started < 5
    host.start()
    assert host.wait_for_outcome(name)["outcome"] == "succeeded"


def test_second_agent_on_the_same_state_is_refused(host: AgentHost) -> None:
    plan = host.state_dir / "plans" / "of-the-first-agent"
    plan.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(host.config), "--socket", f"{host.base}/x"],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "uses it" in done.stderr
    assert "Traceback" not in done.stderr
    assert host.is_answering()
    assert plan.is_dir()


@pytest.mark.root
def test_read_only_state_is_refused_with_a_remedy(host: AgentHost) -> None:
    host.stop()
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"',
        "sh", str(host.state_dir), sys.executable, "-m", "agent", "--config", str(host.config),
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", *script],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "read-only" in done.stderr.lower()
    assert str(host.state_dir) in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_database_is_refused_and_left_as_it_is(host: AgentHost) -> None:
    host.stop()
    database = host.state_dir / "state.db"
    damaged = b"\0" * 300 + database.read_bytes()[300:]
    database.write_bytes(damaged)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(host.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "state.db" in done.stderr
    assert "mv " in done.stderr
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == damaged


def test_newer_database_is_refused(host: AgentHost) -> None:
    host.stop()
    with sqlite3.connect(host.state_dir / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--config", str(host.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "newer" in done.stderr


def test_the_same_revision_again_is_not_its_own_previous_one(host: AgentHost) -> None:
    bundle = make_bundle(host.base, "2")
    host.deploy_good(bundle)
    host.deploy_good(bundle)
    application = host.ask("GET", "/v1/status")["applications"][0]
    assert application["previous"]["version"] == "1"
    answer = host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome(answer["deployment"]["id"])["outcome"] == "succeeded"
    assert host.serving() == "1"


def test_retention_keeps_current_and_previous(host: AgentHost) -> None:
    for version in ("2", "3", "4", "5", "6"):
        host.deploy(make_bundle(host.base, version))
    kept = [path for path in (host.state_dir / "releases").iterdir() if path.is_dir()]
    assert len(kept) == 3
    versions = {(path / "app" / "version").read_text().strip() for path in kept}
    assert versions == {"4", "5", "6"}
    assert not list((host.state_dir / "deployments").glob("*/kept"))


def test_every_read_answer_has_a_schema_version(host: AgentHost) -> None:
    for path in ("/v1/version", "/v1/status", "/v1/deployments", "/v1/deployments/last"):
        assert host.ask("GET", path)["schema"] == 1


def test_retention_by_size(state_dir: Path) -> None:
    host = AgentHost(state_dir, "retention: {releases: 10, bundles: 10, size: 3M}\n")
    try:
        host.start()
        for version in ("1", "2", "3", "4", "5"):
            noise = random.Random(version).randbytes(500_000).hex()
            host.deploy_good(make_bundle(host.base, version, files={"app/big": noise}))
        # 1 MB unpacked and half of that packed, each: two fit, and two are current and previous
        kept = [path for path in (host.state_dir / "releases").iterdir() if path.is_dir()]
        versions = {(path / "app" / "version").read_text().strip() for path in kept}
        assert versions == {"4", "5"}
    finally:
        host.clear()
