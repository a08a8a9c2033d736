"""Deployments on a Consul that denies by default: the documented policy is enough for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import LEAST_POLICY, ConsulAgent
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

HOOK = "#!/bin/sh\nexec run-once migrate -- sh -c 'echo $REVISION_VERSION >> {base}/ran'\n"


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[ConsulAgent]:
    server = consul_server.server(tmp_path / "server", **consul_server.ACLS)
    with consul_server.running(server):
        consul_server.bootstrap_acls(server)
        yield server


@pytest.fixture
def host(state_dir: Path, consul: ConsulAgent) -> Iterator[AgentHost]:
    token_file = state_dir / "token"
    token_file.write_text(consul_server.make_token(consul, "agent"))
    host = AgentHost(
        state_dir, f"consul: {{address: '{consul.url}', token_file: '{token_file}'}}\n"
    )
    try:
        host.start()
        yield host
    finally:
        host.clear()


def bundle(host: AgentHost, version: str) -> Path:
    extra = (
        "services:\n  - environment: {prefix: config/go-service, on_change: none,"
        f" file: {host.base}/etc/env}}\n"
    )
    return make_bundle(host.base, version, extra=extra, hooks={"BeforeInstall": HOOK})


def value(host: AgentHost) -> str:
    return (host.base / "etc" / "env").read_text().splitlines()[-1]


def test_all_of_a_deployment_and_a_change(host: AgentHost, consul: ConsulAgent) -> None:
    consul.put_kv("config/go-service/A", b"1")
    host.deploy_good(bundle(host, "1"))
    assert (host.base / "ran").read_text() == "1\n"
    assert value(host) == 'A="1"'
    consul.put_kv("config/go-service/A", b"2")
    wait_until(lambda: value(host) == 'A="2"', 20)
    # denied is not empty: the values stay, and it is said
    reduced = LEAST_POLICY.replace('key_prefix "config/go-service/" { policy = "read" }', "")
    consul_server.change_policy(consul, "agent", reduced)
    host.deploy_good(bundle(host, "2"))
    assert value(host) == 'A="2"'
    log = "\n".join(each["line"] for each in host.client.stream("/v1/deployments/last/log"))
    assert "Consul denies it" in log
    assert 'key_prefix "config/go-service/" { policy = "read" }' in log
    # without a lock nothing runs
    consul_server.change_policy(consul, "agent", reduced.replace("session_prefix", "#"))
    view = host.deploy(bundle(host, "3"))
    assert view["outcome"] == "rolled_back"
    assert any("session_prefix" in line for line in view["failure"]["evidence"])
    assert (host.base / "ran").read_text() == "1\n2\n"
