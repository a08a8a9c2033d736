"""Slots: of the hosts of a group only so many change their configuration at once; a real Consul."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

FOLDER = "deploy/slots/service/default"
TTL = "2"  # seconds; Consul ends a session at twice its TTL, and the delay of its lock comes after
FREED_SECONDS = 20.0
Hosts = Callable[..., AgentHost]


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    folder = tmp_path_factory.mktemp("consul") / "server"
    server = consul_server.server(folder, session_ttl_min="1s")
    with consul_server.running(server):
        yield server


@pytest.fixture
def hosts(state_dir: Path, consul: ConsulAgent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Makes hosts that run version 1 with slots, and whose checks the test lets through."""
    monkeypatch.setenv("TEST_LOCK_SECONDS", TTL)
    consul.put_kv("config/service/A", b"1")
    with ExitStack() as stack:

        def make(name: str, slots: int = 1) -> AgentHost:
            base = state_dir / name
            base.mkdir()
            host = AgentHost(base, f"consul: {{address: '{consul.url}'}}\n")
            stack.callback(host.clear)
            host.start()
            host.deploy_good(bundle(host, slots=slots))
            return host

        yield make
    for prefix in ("config", "deploy"):
        consul.ask("DELETE", f"/v1/kv/{prefix}?recurse")


def bundle(host: AgentHost, version: str = "1", *, slots: int = 1) -> Path:
    """One whose check, after a change, tells how many hosts are in theirs, and waits for a file."""
    shared = host.base.parent
    check = (
        f"#!/bin/sh\ngrep -q '\"1\"' {{base}}/etc/env && exit 0\n"
        f"mkdir -p {shared}/in; touch {shared}/in/$$; ls {shared}/in | wc -l >> {shared}/counts\n"
        f"touch {{base}}/begun\n"
        f"while [ ! -e {{base}}/go ]; do sleep 0.02; done\nrm {shared}/in/$$\n"
    )
    extra = (
        "services:\n  - environment: {prefix: config/service, on_change: none,"
        f" file: {host.base}/etc/env, slots: {slots}}}\n"
    )
    return make_bundle(host.base, version, hooks={"ValidateService": check}, extra=extra)


def value(host: AgentHost) -> str:
    return (host.base / "etc" / "env").read_text().splitlines()[-1]


def decision(host: AgentHost) -> str:
    found = host.ask("GET", "/v1/status")["applications"]
    [service] = [each for each in found if each["application"] == "service"]
    return str(service["environment"]["decision"])


def changes(host: AgentHost) -> list[dict[str, Any]]:
    found = host.ask("GET", "/v1/deployments")["deployments"]
    return [each for each in found if each["trigger"] == "environment"]


def has_changed(host: AgentHost) -> bool:
    return [each["outcome"] for each in changes(host)] == ["succeeded"]


def has_begun(host: AgentHost) -> bool:
    return (host.base / "begun").exists()


def let(*hosts: AgentHost) -> None:
    for host in hosts:
        (host.base / "go").touch()


def holders(consul: ConsulAgent) -> list[str]:
    found = consul.ask("GET", f"/v1/kv/{FOLDER}?recurse") or []
    return [each["Key"] for each in found if each.get("Session")]


def one_that_begins(*hosts: AgentHost) -> AgentHost:
    return wait_until(lambda: next(filter(has_begun, hosts), None), 20)


def test_of_three_hosts_two_at_once(hosts: Hosts, consul: ConsulAgent, state_dir: Path) -> None:
    three = [hosts(name, slots=2) for name in ("one", "two", "three")]
    consul.put_kv("config/service/A", b"2")
    wait_until(lambda: sum(map(has_begun, three)) > 1, 20)
    begun = [host for host in three if has_begun(host)]
    [third] = [host for host in three if host not in begun]
    for host in begun:
        holder = f"{os.uname().nodename} ({changes(host)[0]['id']})"
        wait_until(lambda said=holder: said in decision(third), 10)
    assert "waits for one of 2 slots" in decision(third)
    assert not changes(third)
    let(begun[0])
    wait_until(lambda: has_changed(begun[0]), 20)
    one_that_begins(third)
    let(*three)
    for host in three:
        wait_until(lambda host=host: has_changed(host), 20)
        assert value(host) == 'A="2"'
    assert max((state_dir / "counts").read_text().split()) == "2"
    wait_until(lambda: not holders(consul))


def test_waiting_is_in_nobodys_way(hosts: Hosts, consul: ConsulAgent) -> None:
    """A deployment does not wait for a slot, and takes the change along; a hold holds it."""
    one, two = hosts("one"), hosts("two")
    consul.put_kv("config/service/A", b"2")
    first = one_that_begins(one, two)
    second = two if first is one else one
    wait_until(lambda: "waits for one of 1 slots" in decision(second), 10)
    second.ask("PUT", "/v1/hold", {"reason": "not now", "for_seconds": None})
    wait_until(lambda: "not now" in decision(second), 10)
    second.ask("DELETE", "/v1/hold")
    let(second)
    second.deploy_good(bundle(second, "2"))
    assert value(second) == 'A="2"'
    wait_until(lambda: "waits" not in decision(second), 10)
    assert not changes(second)
    let(first)
    wait_until(lambda: has_changed(first), 20)


def test_host_that_dies_in_the_middle_frees_its_slot(hosts: Hosts, consul: ConsulAgent) -> None:
    one, two = hosts("one"), hosts("two")
    consul.put_kv("config/service/A", b"2")
    first = one_that_begins(one, two)
    second = two if first is one else one
    first.die()
    let(second)
    wait_until(lambda: has_changed(second), FREED_SECONDS)
    let(first)
    first.start()  # undoes what it was in, and begins anew
    wait_until(lambda: value(first) == 'A="2"', 20)


def test_host_that_is_frozen_loses_its_slot_and_goes_on_when_it_thaws(
    hosts: Hosts, consul: ConsulAgent
) -> None:
    one, two = hosts("one"), hosts("two")
    consul.put_kv("config/service/A", b"2")
    first = one_that_begins(one, two)
    second = two if first is one else one
    first.freeze()
    wait_until(lambda: has_begun(second), FREED_SECONDS)
    first.thaw()
    wait_until(lambda: "has lost its slot" in first.log.read_text(), 10)
    let(first, second)
    for host in (first, second):
        wait_until(lambda host=host: has_changed(host), 20)
    wait_until(lambda: not holders(consul))


def test_change_that_loses_its_slot_before_it_begins_waits_again(
    hosts: Hosts, consul: ConsulAgent
) -> None:
    """Behind a deployment of another application."""
    host = hosts("one")
    (host.base / "other").mkdir()
    wait = (
        f"#!/bin/sh\ntouch {host.base}/there\nwhile [ ! -e {host.base}/go ]; do sleep 0.05; done\n"
    )
    path = make_bundle(host.base / "other", "1", hooks={"BeforeInstall": wait})
    other = host.request(path, application="other")
    host.wait_for_file(host.base / "there")
    consul.put_kv("config/service/A", b"2")
    wait_until(lambda: changes(host), 10)
    [key] = holders(consul)
    session = consul.ask("GET", f"/v1/kv/{key}")[0]["Session"]
    consul.ask("PUT", f"/v1/session/destroy/{session}")
    wait_until(lambda: changes(host)[0]["outcome"] == "aborted", 10)
    let(host)
    assert host.wait_for_outcome(other)["outcome"] == "succeeded"
    assert value(host) == 'A="1"'
    wait_until(lambda: "is tried again in a minute" in decision(host), 10)


def test_consul_that_goes_away_while_a_host_waits(
    hosts: Hosts, consul: ConsulAgent, state_dir: Path
) -> None:
    """Who changes goes on; who waits comes to nothing, serves on, and catches up."""
    own = consul_server.lasting_server(state_dir / "own", session_ttl_min="1s")
    with consul_server.running(own):
        own.put_kv("config/service/A", b"1")
        one, two = hosts("one"), hosts("two")
        for host in (one, two):
            host.stop()
            host.config.write_text(host.config.read_text().replace(consul.url, own.url))
            host.start()
        own.put_kv("config/service/A", b"2")
        first = one_that_begins(one, two)
        second = two if first is one else one
        wait_until(lambda: "waits for one of 1 slots" in decision(second), 10)
        own.stop()
        wait_until(lambda: "waits for a slot: cannot read" in decision(second), 10)
        let(first, second)
        wait_until(lambda: has_changed(first), 20)
        wait_until(lambda: "is tried again in a minute" in decision(second), 30)
        assert "without a slot" in second.log.read_text()
        assert (changes(second)[0]["outcome"], value(second)) == ("failed", 'A="1"')
        own.start()
        own.wait_for_leader()
        second.ask("POST", "/v1/retry", {"application": "service"})
        wait_until(lambda: value(second) == 'A="2"', 20)


def test_agent_that_is_started_again_goes_on_with_its_slot(
    hosts: Hosts, consul: ConsulAgent
) -> None:
    one, two = hosts("one"), hosts("two")
    consul.put_kv("config/service/A", b"2")
    first = one_that_begins(one, two)
    second = two if first is one else one
    [key] = holders(consul)
    (first.base / "begun").unlink()
    session = consul.ask("GET", f"/v1/kv/{key}")[0]["Session"]
    first.die()
    first.start()
    one_that_begins(first)
    wait_for_ttl(consul)  # after which the session has ended, were it not for the agent
    assert consul.ask("GET", f"/v1/kv/{key}")[0].get("Session") == session
    assert not has_begun(second)
    let(first, second)
    for host in (first, second):
        wait_until(lambda host=host: has_changed(host), 20)


def wait_for_ttl(consul: ConsulAgent) -> None:
    """Until a session that nobody renews has ended, by Consul's own clock."""
    body = {"TTL": f"{TTL}s", "Checks": []}
    made = consul.ask("PUT", "/v1/session/create", body)["ID"]
    wait_until(lambda: not consul.ask("GET", f"/v1/session/info/{made}"), FREED_SECONDS)


def test_wait_has_an_end(
    hosts: Hosts, consul: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SLOT_WAIT_SECONDS", "1")
    one, two = hosts("one"), hosts("two")
    consul.put_kv("config/service/A", b"2")
    wait_until(lambda: has_begun(one) and has_begun(two), 20)
    assert any("without a slot: none was free" in decision(host) for host in (one, two))
    let(one, two)
    wait_until(lambda: has_changed(one), 20)
    wait_until(lambda: has_changed(two), 20)


def test_consul_that_denies_locks_stops_no_change(state_dir: Path) -> None:
    """Without a slot, and said so."""
    server = consul_server.server(state_dir / "server", **consul_server.ACLS)
    with consul_server.running(server):
        consul_server.bootstrap_acls(server)
        rules = 'key_prefix "" { policy = "read" }'
        (state_dir / "token").write_text(consul_server.make_token(server, "reader", rules))
        server.put_kv("config/service/A", b"1")
        host = AgentHost(
            state_dir,
            f"consul: {{address: '{server.url}', token_file: '{state_dir}/token'}}\n",
        )
        try:
            host.start()
            host.deploy_good(bundle(host))
            let(host)
            server.put_kv("config/service/A", b"2")
            wait_until(lambda: has_changed(host), 20)
            by = changes(host)[0]["requested_by"]
            assert by == "Consul config/service, without a slot"
            assert 'session_prefix "" { policy = "write" }' in host.log.read_text()
        finally:
            host.clear()
