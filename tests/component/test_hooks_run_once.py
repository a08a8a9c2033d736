"""The command run-once, as scripts of two hosts call it, on a real Consul."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.upkeep.run_once import KEPT_RESULTS
from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent
from tests.hook_scene import COMMANDS
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

KEY = "deploy/run-once/service/default/migrate/{version}"
Hosts = Callable[[str], AgentHost]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    folder = tmp_path_factory.mktemp("consul") / "server"
    server = consul_server.server(folder, session_ttl_min="1s")
    with consul_server.running(server):
        yield server


@pytest.fixture
def hosts(state_dir: Path, consul: ConsulAgent) -> Iterator[Hosts]:
    """Makes hosts that use the Consul; what a test left there is removed."""
    with ExitStack() as stack:

        def make(name: str) -> AgentHost:
            base = state_dir / name
            base.mkdir()
            host = AgentHost(base, f"consul: {{address: '{consul.url}'}}\n")
            stack.callback(host.clear)
            host.start()
            return host

        yield make
    consul.ask("DELETE", "/v1/kv/deploy?recurse")


def bundle(
    host: AgentHost, shared: Path, script: str, version: str = "1", *, lease: int = 10
) -> Path:
    """One whose BeforeInstall runs a command once; all of them write into one file."""
    migrate = f"#!/bin/sh\necho $REVISION_VERSION >> {shared}/ran\n{script}"
    hook = f"#!/bin/sh\nexec run-once migrate --wait 40 --lease {lease} -- sh -c '{migrate}'\n"
    return make_bundle(host.base, version, hooks={"BeforeInstall": hook})


def waiting(shared: Path) -> str:
    return f"while [ ! -e {shared}/gate ]; do sleep 0.05; done\n"


def ran(shared: Path) -> list[str]:
    path = shared / "ran"
    return path.read_text().splitlines() if path.exists() else []


def log_of(host: AgentHost) -> str:
    return "\n".join(each["line"] for each in host.client.stream("/v1/deployments/last/log"))


def result(consul: ConsulAgent, version: str = "1") -> dict[str, Any] | None:
    text = consul.ask("GET", f"/v1/kv/{KEY.format(version=version)}/result?raw")
    return text if text is None else dict(text)


def holder(consul: ConsulAgent, version: str = "1") -> str:
    found = consul.ask("GET", f"/v1/kv/{KEY.format(version=version)}")
    return str(found[0].get("Session", "")) if found else ""


def test_of_two_hosts_at_once_one_runs_it(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    one, two = hosts("one"), hosts("two")
    script = waiting(state_dir) + "echo migrated"
    ids = [each.request(bundle(each, state_dir, script)) for each in (one, two)]
    wait_until(lambda: "which runs it" in log_of(one) + log_of(two), 15)
    assert result(consul) is None
    (state_dir / "gate").touch()
    views = [one.wait_for_outcome(ids[0]), two.wait_for_outcome(ids[1])]
    assert [view["outcome"] for view in views] == ["succeeded"] * 2
    assert ran(state_dir) == ["1"]
    found = result(consul)
    assert found is not None
    assert (found["exit_code"], found["lines"]) == (0, ["migrated"])
    assert found["host"] == os.uname().nodename
    assert found["deployment"] in ids
    assert 0 < found["began"] <= found["ended"]
    assert "ran on" in (log_of(one) if found["deployment"] == ids[1] else log_of(two))
    assert holder(consul) == ""


def test_each_version_once_also_after_a_rollback(hosts: Hosts, state_dir: Path) -> None:
    host = hosts("one")
    for version in ("1", "2"):
        host.deploy_good(bundle(host, state_dir, "true", version))
    host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome()["outcome"] == "succeeded"
    assert ran(state_dir) == ["1", "2"]


def test_failure_is_for_all_that_waited_and_the_next_deployment_tries_again(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    one, two = hosts("one"), hosts("two")
    script = waiting(state_dir) + f"echo broken; [ -e {state_dir}/mended ] || exit 3"
    ids = [each.request(bundle(each, state_dir, script)) for each in (one, two)]
    wait_until(lambda: "which runs it" in log_of(one) + log_of(two), 15)
    (state_dir / "gate").touch()
    for host, deployment_id in zip((one, two), ids, strict=True):
        view = host.wait_for_outcome(deployment_id)
        assert view["outcome"] == "rolled_back"
        assert "exit code 3" in view["failure"]["message"]
        assert any("broken" in line for line in view["failure"]["evidence"])
    assert ran(state_dir) == ["1"]
    (state_dir / "mended").touch()
    for host in (one, two):
        host.ask("POST", "/v1/retry", {"application": "service"})
        assert host.wait_for_outcome()["outcome"] == "succeeded"
    assert ran(state_dir) == ["1", "1"]
    found = result(consul)
    assert found is not None
    assert found["exit_code"] == 0


def test_exit_code_75_is_no_result(hosts: Hosts, consul: ConsulAgent, state_dir: Path) -> None:
    host = hosts("one")
    script = f"[ -e {state_dir}/second ] && exit 0; touch {state_dir}/second; exit 75"
    host.config.write_text(host.config.read_text().replace("grace: 1s", "grace: 1s, retry: 0.1s"))
    host.stop()
    host.start()
    host.deploy_good(bundle(host, state_dir, script))
    assert ran(state_dir) == ["1", "1"]
    found = result(consul)
    assert found is not None
    assert found["exit_code"] == 0


def test_lost_lock_ends_the_command(hosts: Hosts, consul: ConsulAgent, state_dir: Path) -> None:
    """What Consul does when a session's TTL is over, at once."""
    host = hosts("one")
    deployment_id = host.request(bundle(host, state_dir, f"echo $$ > {state_dir}/pid; sleep 1000"))
    host.wait_for_file(state_dir / "pid")
    pid = int(wait_until((state_dir / "pid").read_text, 5))
    session = wait_until(lambda: holder(consul), 5)
    consul.ask("PUT", f"/v1/session/destroy/{session}")
    view = host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert any("session has ended" in line for line in view["failure"]["evidence"])
    assert not psutil.pid_exists(pid)
    assert result(consul) is None


@pytest.fixture
def short_locks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leases of 2 s, which Consul doubles, and as long a delay; asked for before `hosts`."""
    monkeypatch.setenv("TEST_LOCK_SECONDS", "2")
    return 2


def test_host_that_dies_in_the_middle_frees_it(
    short_locks: int, hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    one, two = hosts("one"), hosts("two")
    script = f"[ -e {state_dir}/first ] && exit 0; touch {state_dir}/first; exec sleep 1000"
    one.request(bundle(one, state_dir, script, lease=short_locks))
    one.wait_for_file(state_dir / "first")
    deployment_id = two.request(bundle(two, state_dir, script, lease=short_locks))
    wait_until(lambda: "which runs it" in log_of(two), 15)
    one.die()
    view = wait_until(lambda: ended(two, deployment_id), 30)
    assert view["outcome"] == "succeeded"
    assert ran(state_dir) == ["1", "1"]
    found = result(consul)
    assert found is not None
    assert found["deployment"] == deployment_id


@pytest.mark.parametrize("has_ended", [False, True], ids=["still-runs", "has-ended"])
def test_host_that_is_frozen_has_lost_it_when_it_thaws(
    short_locks: int, hosts: Hosts, consul: ConsulAgent, state_dir: Path, *, has_ended: bool
) -> None:
    """Whatever its command has come to: another host has run it, and that is what counts."""
    one, two = hosts("one"), hosts("two")
    script = (
        f"[ -e {state_dir}/first ] && exit 0; echo $$ > {state_dir}/first;"
        f" while [ ! -e {state_dir}/end ]; do sleep 0.05; done; echo of the first; exit 0"
    )
    first = one.request(bundle(one, state_dir, script, lease=short_locks))
    one.wait_for_file(state_dir / "first")
    second = two.request(bundle(two, state_dir, script, lease=short_locks))
    wait_until(lambda: "which runs it" in log_of(two), 15)
    one.freeze()
    view = wait_until(lambda: ended(two, second), 30)
    assert view["outcome"] == "succeeded"
    if has_ended:
        (state_dir / "end").touch()
    one.thaw()
    view = one.wait_for_outcome(first)
    assert view["outcome"] == "rolled_back"
    assert any("its session has ended" in line for line in view["failure"]["evidence"])
    assert ran(state_dir) == ["1", "1"]
    assert not psutil.pid_exists(int((state_dir / "first").read_text()))
    found = result(consul)
    assert found is not None
    assert (found["deployment"], found["lines"]) == (second, [])


@pytest.mark.timeout(120)
def test_host_that_is_cut_off_ends_it_before_another_one_begins(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    """With the lock's real times: a TTL of 10 s, which Consul doubles, and a delay of 15 s."""
    client = consul_server.client(state_dir / "client", consul)
    with consul_server.running(client):
        one, two = hosts("one"), hosts("two")
        one.stop()
        one.config.write_text(one.config.read_text().replace(consul.url, client.url))
        one.start()
        script = (
            f"if [ -e {state_dir}/first ]; then"
            f" kill -0 $(cat {state_dir}/first) && exit 9; exit 0; fi;"
            f" echo $$ > {state_dir}/first; sleep 1000"
        )
        first = one.request(bundle(one, state_dir, script))
        one.wait_for_file(state_dir / "first")
        client.freeze()
        second = two.request(bundle(two, state_dir, script))
        view = one.wait_for_outcome(first)
        assert view["outcome"] == "rolled_back"
        assert any("no host can be kept" in line for line in view["failure"]["evidence"])
        assert ran(state_dir) == ["1"]
        view = wait_until(lambda: ended(two, second), 60)
        assert view["outcome"] == "succeeded"
        client.thaw()
    assert ran(state_dir) == ["1", "1"]


def test_old_results_are_removed(hosts: Hosts, consul: ConsulAgent, state_dir: Path) -> None:
    """All but the newest, what the host could return to, what is locked, and what is not ours."""
    host = hosts("one")
    host.deploy_good(bundle(host, state_dir, "true", "current"))
    session = consul.ask("PUT", "/v1/session/create", {"TTL": "60s", "Checks": []})["ID"]
    versions = [f"0.{number}" for number in range(KEPT_RESULTS + 5)]
    for version in versions:
        key = KEY.format(version=version)
        consul.ask("PUT", f"/v1/kv/{key}" + ("?acquire=" + session) * (version == "0.1"), b"")
        consul.put_kv(f"{key}/result", b'{"exit_code": 0}')
    consul.put_kv(KEY.format(version="notes"), b"of somebody")
    host.deploy_good(bundle(host, state_dir, "true", "new"))

    def left() -> set[str]:
        found = consul.ask("GET", f"/v1/kv/{KEY.format(version='')}?keys")
        return {each.removeprefix(KEY.format(version="")) for each in found}

    kept = {*versions[-KEPT_RESULTS + 1 :], "0.1", "current", "new"}
    wanted = {"notes", *kept, *(f"{each}/result" for each in kept)}
    wait_until(lambda: left() == wanted)
    consul.ask("PUT", f"/v1/session/destroy/{session}")


def ended(host: AgentHost, deployment_id: str) -> dict[str, Any]:
    view = host.deployment(deployment_id)
    return view if view["status"] in ("done", "failed") else {}


def test_wait_has_an_end(hosts: Hosts, state_dir: Path) -> None:
    one, two = hosts("one"), hosts("two")
    one.request(bundle(one, state_dir, waiting(state_dir)))
    wait_until(lambda: ran(state_dir), 10)
    path = bundle(two, state_dir, "true")
    hook = "#!/bin/sh\nexec run-once migrate --wait 0.5 -- true\n"
    path = make_bundle(two.base, "1", hooks={"BeforeInstall": hook})
    view = two.deploy(path)
    assert view["outcome"] == "rolled_back"
    assert any("not ended within 0.5 s" in line for line in view["failure"]["evidence"])
    (state_dir / "gate").touch()
    assert one.wait_for_outcome()["outcome"] == "succeeded"


@pytest.mark.root
def test_user_of_the_hook_needs_no_rights(hosts: Hosts, state_dir: Path) -> None:
    """As one who may read neither the agent's configuration nor Consul's token."""
    host = hosts("one")
    for folder in (state_dir, host.base):
        folder.chmod(0o755)
    (state_dir / "ran").touch()
    (state_dir / "ran").chmod(0o666)
    path = make_bundle(
        host.base,
        "1",
        files={
            "appspec.yml": "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n"
            "    - location: scripts/open\n"
            "    - {location: scripts/once, runas: nobody}\n",
            "scripts/open": "#!/bin/sh\nchmod 755 $RELEASE_DIR/scripts/once\n",
            "scripts/once": f"#!/bin/sh\nid -un >> {state_dir}/ran\n"
            f"run-once migrate -- sh -c 'id -un >> {state_dir}/ran'\n",
        },
    )
    host.deploy_good(path)
    assert ran(state_dir) == ["nobody", "nobody"]


def test_processes_outside_of_a_hook_are_refused(hosts: Hosts, state_dir: Path) -> None:
    """Also root's, while a hook runs, and with all that a hook's environment has."""
    host = hosts("one")
    host.request(bundle(host, state_dir, waiting(state_dir)))
    wait_until(lambda: ran(state_dir), 10)
    body = {"holder": "x", "lease_seconds": 10}
    status, answer = host.client.request("POST", "/v1/run-once/migrate/begin", body)
    assert (status, answer["error"]["code"]) == (403, "not-permitted")
    script = (
        "import http.client, json, socket, sys\n"
        "link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1])\n"
        "c = http.client.HTTPConnection('localhost'); c.sock = link\n"
        f"c.request('POST', '/v1/run-once/migrate/begin', {json.dumps(body)!r})\n"
        "print(c.getresponse().status)\n"
    )
    done = subprocess.run(
        ["python3", "-c", script, str(host.run_dir / "agent.sock")],
        env={
            "PATH": os.environ["PATH"],
            "DEPLOYMENT_ID": host.deployment()["id"],
            "LIFECYCLE_EVENT": "BeforeInstall",
        },
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.stdout == "403\n", done.stderr
    (state_dir / "gate").touch()
    assert host.wait_for_outcome()["outcome"] == "succeeded"


def test_consul_that_is_away_is_not_taken_for_none(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    host = hosts("one")
    hook = "#!/bin/sh\nexec run-once migrate --wait 1 -- touch {base}/here\n"
    consul.freeze()
    try:
        deployment_id = host.request(make_bundle(host.base, "1", hooks={"BeforeInstall": hook}))
        view = wait_until(lambda: ended(host, deployment_id), 50)
    finally:
        consul.thaw()
    assert view["outcome"] == "rolled_back"
    assert any("Consul" in line for line in view["failure"]["evidence"])
    assert not (host.base / "here").exists()


def test_without_consul_it_runs_here(state_dir: Path) -> None:
    host = AgentHost(state_dir)
    try:
        host.start()
        hook = "#!/bin/sh\nexec run-once migrate -- sh -c 'echo here; exit 0'\n"
        host.deploy_good(make_bundle(state_dir, "1", hooks={"BeforeInstall": hook}))
        assert "no Consul is configured, so it runs here" in log_of(host)
        failing = "#!/bin/sh\nexec run-once migrate -- sh -c 'exit 7'\n"
        view = host.deploy(make_bundle(state_dir, "2", hooks={"BeforeInstall": failing}))
        assert "exit code 7" in view["failure"]["message"]
    finally:
        host.clear()


def test_timeout_of_the_hook_is_a_recorded_failure(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    host = hosts("one")
    script = f'trap "echo bye; exit 0" TERM; echo $$ > {state_dir}/pid; sleep 1000 & wait'
    deployment_id = host.request(bundle(host, state_dir, script))
    host.wait_for_file(state_dir / "pid")
    host.ask("POST", f"/v1/deployments/{deployment_id}/abort", {"now": True})
    assert host.wait_for_outcome(deployment_id)["outcome"] == "aborted"
    found = result(consul)
    assert found is not None
    assert (found["exit_code"], found["lines"]) == (128 + signal.SIGTERM, ["bye"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "arguments are required"),
        (("migrate",), "which command"),
        (("m", "--", "true"), "hooks"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [COMMANDS / "run-once", *arguments], env={}, capture_output=True, text=True, timeout=8
    )
    assert done.returncode == 2
    assert said in done.stderr
