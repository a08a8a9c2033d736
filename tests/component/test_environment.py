"""A service's environment from keys of a real Consul: at a deployment, and put back with it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FAILING = "#!/bin/sh\nexit 1\n"


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    server = consul_server.server(tmp_path_factory.mktemp("consul") / "server")
    with consul_server.running(server):
        yield server


@pytest.fixture
def host(state_dir: Path, consul: ConsulAgent) -> Iterator[AgentHost]:
    host = AgentHost(state_dir, f"consul: {{address: '{consul.url}'}}\n")
    try:
        host.start()
        yield host
    finally:
        host.clear()
        consul.ask("DELETE", "/v1/kv/config?recurse")


def bundle(host: AgentHost, version: str, more: str = "", **options: Any) -> Path:
    """One with an environment; nothing is told of a change, as there is no systemd here."""
    extra = (
        "services:\n  - environment: {prefix: config/service, on_change: none,"
        f" file: {host.base}/etc/env{more}}}\n"
    )
    return make_bundle(host.base, version, extra=extra, **options)


def put(consul: ConsulAgent, **values: str) -> None:
    for name, value in values.items():
        consul.put_kv(f"config/service/{name}", value.encode())


def written(host: AgentHost) -> dict[str, str]:
    """What the file says, without its head; quoted values as they are."""
    path = host.base / "etc" / "env"
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def log_of(host: AgentHost) -> str:
    return "\n".join(each["line"] for each in host.client.stream("/v1/deployments/last/log"))


def test_deployment_writes_what_consul_has(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, DB_HOST="db.example", PASSWORD='se"c$ret')
    view = host.deploy_good(bundle(host, "1"))
    path = host.base / "etc" / "env"
    assert written(host) == {"DB_HOST": '"db.example"', "PASSWORD": '"se\\"c\\$ret"'}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    install = next(step for step in view["steps"] if step["name"] == "install")
    assert "with 2 variables of index" in install["note"]
    texts = [each.read_text() for each in (host.log, *host.base.glob("state/deployments/*/log"))]
    assert not any("se" + '"c$ret' in text or "db.example" in text for text in texts)
    assert not list(host.base.glob("state/deployments/*/environment.json"))
    assert not list(host.base.glob("state/deployments/*/environment"))


def test_owner_and_mode(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1", ', mode: "0640"'))
    assert stat.S_IMODE((host.base / "etc" / "env").stat().st_mode) == 0o640


def test_failed_deployment_puts_the_values_back(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    before = (host.base / "etc" / "env").stat()
    put(consul, A="2", B="new")
    view = host.deploy(bundle(host, "2", hooks={"ValidateService": FAILING}))
    assert view["outcome"] == "rolled_back"
    assert written(host) == {"A": '"1"'}
    after = (host.base / "etc" / "env").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_failed_first_deployment_leaves_nothing(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    view = host.deploy(bundle(host, "1", hooks={"ValidateService": FAILING}))
    assert view["outcome"] == "rolled_back"
    assert not (host.base / "etc").exists()


def test_rollback_brings_the_values_of_then(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    put(consul, A="2")
    host.deploy_good(bundle(host, "2"))
    assert written(host) == {"A": '"2"'}
    host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome()["outcome"] == "succeeded"
    assert written(host) == {"A": '"1"'}


def test_revision_without_it_takes_the_file_away(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    view = host.deploy(make_bundle(host.base, "2", hooks={"ValidateService": FAILING}))
    assert view["outcome"] == "rolled_back"
    assert written(host) == {"A": '"1"'}
    host.deploy_good(make_bundle(host.base, "3"))
    assert written(host) == {}


def test_consul_that_is_away(host: AgentHost, consul: ConsulAgent) -> None:
    """The first deployment fails before anything is touched; a later one has earlier values."""
    put(consul, A="1")
    consul.freeze()
    try:
        view = wait_until(lambda: ended(host, host_request(host, "1")), 40)
        assert view["outcome"] == "failed"
        evidence = "\n".join([view["failure"]["message"], *view["failure"]["evidence"]])
        assert "no earlier values are on this host" in evidence
    finally:
        consul.thaw()
    host.deploy_good(bundle(host, "2"))
    consul.freeze()
    try:
        view = wait_until(lambda: ended(host, host_request(host, "3")), 40)
    finally:
        consul.thaw()
    assert view["outcome"] == "succeeded"
    assert "the values of index" in log_of(host)
    assert written(host) == {"A": '"1"'}


def host_request(host: AgentHost, version: str) -> str:
    """Asked for once, however often this is called."""
    known = getattr(host, "asked", {})
    if version not in known:
        known[version] = host.request(bundle(host, version))
        host.asked = known  # type: ignore[attr-defined]
    return str(known[version])


def ended(host: AgentHost, deployment_id: str) -> dict[str, Any]:
    view = host.deployment(deployment_id)
    return view if view["status"] in ("done", "failed") else {}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("not-a-name", "config/service/not-a-name: no name of a variable"),
        ("folder/A", "config/service/folder/A: no name of a variable"),
        ("", "there are none"),
    ],
)
def test_keys_that_are_none_are_refused(
    host: AgentHost, consul: ConsulAgent, key: str, said: str
) -> None:
    if key:
        consul.put_kv(f"config/service/{key}", b"secret")
    view = host.deploy(bundle(host, "1"))
    assert view["outcome"] == "failed"
    evidence = "\n".join([view["failure"]["message"], *view["failure"]["evidence"]])
    assert said in evidence
    assert "secret" not in evidence


def test_empty_is_written_only_where_it_is_said(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    consul.ask("DELETE", "/v1/kv/config?recurse")
    host.deploy_good(bundle(host, "2"))
    assert written(host) == {"A": '"1"'}
    assert "there are none" in log_of(host)
    consul.put_kv("config/service/.empty", b"1")
    host.deploy_good(bundle(host, "3"))
    assert (host.base / "etc" / "env").exists()
    assert written(host) == {}


def test_file_of_the_bundle_is_in_the_way(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    extra = (
        "services:\n  - environment: {prefix: config/service, on_change: none,"
        f" file: {host.base}/app/version}}\n"
    )
    view = host.deploy(make_bundle(host.base, "1", extra=extra))
    assert view["outcome"] == "failed"
    assert "in the bundle, and the environment of a service" in str(view["failure"])


# a change while the revision runs


def deployments(host: AgentHost) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.ask("GET", "/v1/deployments")["deployments"]
    return found


def change_of(host: AgentHost, number: int = 1) -> dict[str, Any]:
    """The deployment of the so-manieth change, when it has ended."""

    def found() -> dict[str, Any]:
        known = [each for each in deployments(host) if each["trigger"] == "environment"]
        is_there = len(known) >= number and known[0]["status"] in ("done", "failed")
        return known[0] if is_there else {}

    return wait_until(found, 20)


def environment(host: AgentHost) -> dict[str, Any]:
    [application] = host.ask("GET", "/v1/status")["applications"]
    shown: dict[str, Any] = application["environment"]
    return shown


def test_change_is_deployed(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    events = host.events()
    put(consul, A="2", SECRET="hush-hush")
    change = change_of(host)
    assert (change["outcome"], change["version"]) == ("succeeded", "1")
    assert change["requested_by"] == "Consul config/service"
    assert written(host) == {"A": '"2"', "SECRET": '"hush-hush"'}
    steps = host.deployment(change["id"])["steps"]
    [plan] = [step for step in steps if step["name"] == "plan"]
    assert "1 added, 1 changed (A, SECRET)" in plan["note"]
    # nothing but the check of the revision ran
    assert host.events() == [*events, "ValidateService 1"]
    [shown] = environment(host)["files"]
    assert shown["names"] == ["A", "SECRET"]
    assert shown["index"] > 0
    assert host.ask("GET", "/v1/status")["applications"][0]["previous"] is None
    texts = [host.log.read_text(), log_of(host), str(host.ask("GET", "/v1/status"))]
    assert not any("hush-hush" in text for text in texts)


def test_broken_change_is_put_back_and_waits_for_the_next(
    host: AgentHost, consul: ConsulAgent
) -> None:
    check = f"#!/bin/sh\n! grep -q broken {host.base}/etc/env\n"
    put(consul, A="1")
    host.deploy_good(bundle(host, "1", hooks={"ValidateService": check}))
    put(consul, A="broken")
    assert change_of(host)["outcome"] == "rolled_back"
    assert written(host) == {"A": '"1"'}
    wait_until(lambda: "was put back here" in environment(host)["decision"], 10)
    host.stop()
    host.start()
    wait_until(lambda: "was put back here" in environment(host)["decision"], 10)
    assert len(deployments(host)) == 2
    put(consul, A="good")
    assert change_of(host, 2)["outcome"] == "succeeded"
    assert written(host) == {"A": '"good"'}


def test_values_that_vanish_stay(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    consul.ask("DELETE", "/v1/kv/config?recurse")
    wait_until(lambda: "there are none" in environment(host)["decision"], 10)
    assert written(host) == {"A": '"1"'}
    assert len(deployments(host)) == 1
    consul.put_kv("config/service/.empty", b"1")
    assert change_of(host)["outcome"] == "succeeded"
    assert written(host) == {}


def test_after_a_rollback_the_values_of_then_stay(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    put(consul, A="2")
    change_of(host)
    host.deploy_good(bundle(host, "2"))
    put(consul, A="3")
    change_of(host, 2)
    host.ask("POST", "/v1/rollback", {"application": "service"})
    assert host.wait_for_outcome()["outcome"] == "succeeded"
    assert written(host) == {"A": '"2"'}
    wait_until(lambda: "was rolled back here" in environment(host)["decision"], 10)
    assert written(host) == {"A": '"2"'}
    put(consul, A="4")
    change_of(host, 3)
    assert written(host) == {"A": '"4"'}


def test_agent_that_was_away_catches_up(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    host.stop()
    put(consul, A="2")
    host.start()
    assert change_of(host)["outcome"] == "succeeded"
    assert written(host) == {"A": '"2"'}


@pytest.mark.parametrize("at", ["do-before", "do-after"])
@pytest.mark.parametrize("row", ["plan", "install", "validate"])
def test_agent_killed_in_a_change(host: AgentHost, consul: ConsulAgent, row: str, at: str) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    host.stop()
    put(consul, A="2")
    host.start({"row": row, "at": at, "how": "kill"})
    host.wait_for_end()
    host.start()
    change = change_of(host)
    value = {"succeeded": '"2"', "rolled_back": '"1"'}[change["outcome"]]
    assert (change["outcome"] == "succeeded") == (row != "install")
    assert written(host) == {"A": value}


def test_held_changes_wait(host: AgentHost, consul: ConsulAgent) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    host.ask("PUT", "/v1/hold", {"reason": "not now", "for_seconds": None})
    put(consul, A="2")
    wait_until(lambda: "not now" in environment(host)["decision"], 10)
    assert written(host) == {"A": '"1"'}
    host.ask("DELETE", "/v1/hold")
    put(consul, A="3")
    change_of(host)
    assert written(host) == {"A": '"3"'}


def test_change_that_cannot_be_read_is_not_tried_all_the_time(
    host: AgentHost, consul: ConsulAgent
) -> None:
    put(consul, A="1")
    host.deploy_good(bundle(host, "1"))
    host.stop()
    put(consul, A="2")
    host.start({"row": "plan", "at": "do-before", "how": "fail"})
    assert change_of(host)["outcome"] == "failed"
    wait_until(lambda: "is tried again in a minute" in environment(host)["decision"], 10)
    host.stop()
    host.start()
    wait_until(lambda: "is tried again in a minute" in environment(host)["decision"], 10)
    assert len(deployments(host)) == 2
    assert written(host) == {"A": '"1"'}
    host.ask("POST", "/v1/retry", {"application": "service"})
    assert change_of(host, 2)["outcome"] == "succeeded"
    assert written(host) == {"A": '"2"'}
