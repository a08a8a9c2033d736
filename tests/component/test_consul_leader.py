"""Three servers of Consul lose their leader: in the middle of calls, a deployment and a change.

Every wait is a long one, as an election on a busy machine may take several turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.consul.adapter import Consul
from agent.model.consul import KvSnapshot, ServiceRegistration
from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ELECTED_SECONDS = 60.0


class Cluster:
    """client: what a host asks."""

    def __init__(self, servers: list[ConsulAgent], client: ConsulAgent) -> None:
        self.servers = servers
        self.client = client

    def leader(self) -> ConsulAgent | None:
        """Whom the client takes for it; None while there is none."""
        try:
            address = self.client.ask("GET", "/v1/status/leader")
        except OSError:
            return None
        port = f":{address.rpartition(':')[2]}"
        return next((each for each in self.servers if port == f":{each.server_port}"), None)

    @contextmanager
    def leader_lost(self) -> Iterator[ConsulAgent]:
        """It is killed, and back at the end, as one of three again."""
        lost = wait_until(self.leader, ELECTED_SECONDS)
        lost.stop()
        try:
            yield lost
        finally:
            lost.start()
            lost.wait_for_leader(ELECTED_SECONDS)

    def put(self, value: str) -> None:
        """As a person does, again until it is taken."""

        def is_put() -> bool:
            try:
                self.client.put_kv("config/service/A", value.encode())
            except OSError:
                return False
            return True

        wait_until(is_put, ELECTED_SECONDS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers, client = consul_server.cluster(tmp_path_factory.mktemp("cluster"))
    with consul_server.running(*servers, client, seconds=ELECTED_SECONDS):
        yield Cluster(servers, client)


@pytest.fixture
def host(state_dir: Path, cluster: Cluster) -> Iterator[AgentHost]:
    host = AgentHost(state_dir, f"consul: {{address: '{cluster.client.url}'}}\n")
    try:
        cluster.put("1")
        host.start()
        yield host
    finally:
        host.clear()


def waiting(host: AgentHost, before: str = "") -> str:
    """A script that makes a file, and waits for another one."""
    there, go = host.base / "there", host.base / "go"
    wait = f"touch {there}; while [ ! -e {go} ]; do sleep 0.05; done"
    return f'#!/bin/sh\n{before}sh -c "{wait}"\n'


def bundle(host: AgentHost, version: str, **hooks: str) -> Path:
    file = host.base / "etc" / "env"
    extra = (
        "services:\n  - consul: {name: go-service, drain: 0}\n"
        f"    environment: {{prefix: config/service, file: {file}, on_change: none}}\n"
    )
    return make_bundle(host.base, version, hooks=hooks, extra=extra)


def value(host: AgentHost) -> str:
    return (host.base / "etc" / "env").read_text().splitlines()[-1]


def catalogue(cluster: Cluster) -> list[str]:
    """Versions that the servers give to those who ask for what passes."""
    try:
        found = cluster.client.ask("GET", "/v1/health/service/go-service?passing=true")
    except OSError:
        return []
    return [each["Service"]["Meta"]["version"] for each in found]


async def next_of(watch: Any) -> KvSnapshot:
    found: KvSnapshot = await anext(watch)
    return found


async def test_calls_and_a_watch(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.put, "1")
    consul = Consul(cluster.client.settings(), patience_seconds=ELECTED_SECONDS)
    watch = consul.watch_prefix("config/service")
    assert (await next_of(watch)).values == {"A": b"1"}
    waiting = asyncio.create_task(next_of(watch))
    with cluster.leader_lost() as lost:
        await consul.register(ServiceRegistration("web", "web", port=80))  # the local agent's
        assert await consul.put_kv("config/service/A", b"2")  # waits for the election
        assert (await asyncio.wait_for(waiting, ELECTED_SECONDS)).values == {"A": b"2"}

        def is_elected() -> bool:
            return cluster.leader() not in (None, lost)

        await asyncio.to_thread(wait_until, is_elected, ELECTED_SECONDS)
        await consul.deregister("web")
    await consul.close()


def test_a_deployment_with_run_once(host: AgentHost, cluster: Cluster) -> None:
    """Out of traffic and in the middle of a command that runs once, which is recorded after it."""
    host.deploy_good(bundle(host, "1"))
    wait_until(lambda: catalogue(cluster) == ["1"], ELECTED_SECONDS)
    once = waiting(host, "run-once migrate --lease 120 -- ")
    deployment = host.request(bundle(host, "2", BeforeInstall=once))
    host.wait_for_file(host.base / "there")
    with cluster.leader_lost():
        (host.base / "go").touch()
        view = wait_until(lambda: ended(host, deployment), ELECTED_SECONDS)
        assert view["outcome"] == "succeeded"
        assert host.serving() == "2"
        wait_until(lambda: catalogue(cluster) == ["2"], ELECTED_SECONDS)
        path = "/v1/kv/deploy/run-once/service/default/migrate/2/result?raw"
        assert cluster.client.ask("GET", path)["deployment"] == deployment


def test_a_change_of_keys(host: AgentHost, cluster: Cluster) -> None:
    """In the middle of the change, and while nobody can write the next one."""
    check = waiting(host, f"grep -q '\"1\"' {host.base}/etc/env && exit 0\n")
    host.deploy_good(bundle(host, "1", ValidateService=check))
    cluster.put("2")
    host.wait_for_file(host.base / "there")
    with cluster.leader_lost():
        (host.base / "go").touch()
        cluster.put("3")
        wait_until(lambda: value(host) == 'A="3"', ELECTED_SECONDS)
    changes = [
        each["outcome"]
        for each in host.ask("GET", "/v1/deployments")["deployments"]
        if each["trigger"] == "environment" and each["outcome"] is not None
    ]
    assert changes
    assert set(changes) <= {"succeeded"}
    wait_until(lambda: catalogue(cluster) == ["1"], ELECTED_SECONDS)


def ended(host: AgentHost, deployment_id: str) -> dict[str, Any]:
    view = host.deployment(deployment_id)
    return view if view["status"] in ("done", "failed") else {}
