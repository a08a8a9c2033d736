"""Load balancers that follow Consul, under load, while one of two hosts is deployed to.

They are real, and configured as docs/load-balancers.md says.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import (
    balanced_host,
    balancers,
    consul_server,
    doc_blocks,
    go_service,
    load,
    traffic_scene,
)
from tests.balanced_host import NAME, BalancedHost, Broken
from tests.balancers import HAProxy, RenderedNginx
from tests.consul_server import ConsulAgent
from tests.load import Load
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = "load-balancers.md"
GOOD = None
DEPLOYMENTS = (
    GOOD, GOOD, Broken.VALIDATE, GOOD, Broken.CHECK, GOOD, Broken.LATE, Broken.NO_START, GOOD,
    Broken.OTHER_VERSION, GOOD, GOOD, Broken.LATE, GOOD, Broken.VALIDATE, GOOD, GOOD,
    Broken.CHECK, GOOD, GOOD,
)  # fmt: skip


class Balanced(NamedTuple):
    """Two hosts that serve, and the Consul agent and the token of the load balancer's host."""

    base: Path
    consul: ConsulAgent
    token: str
    first: BalancedHost
    second: BalancedHost


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """Version 0 serves on both."""
    with (
        traffic_scene.acl_server(tmp_path_factory.mktemp("server")) as server,
        tempfile.TemporaryDirectory(prefix="deploy-agent-test-", dir="/var/tmp") as folder,
    ):
        base = Path(folder)
        token = consul_server.make_token(
            server, "balancer", doc_blocks.read(PAGE, 'node_prefix "" { policy = "read" }')
        )
        [dns] = consul_server.free_ports(1)
        consul = traffic_scene.acl_client(base / "balancer", server, ports={"dns": dns})
        tokens = {"agent": server.token, "default": token}
        consul.change(acl={**consul_server.ACLS["acl"], "tokens": tokens})
        with (
            consul_server.running(consul),
            balanced_host.running(base / "a", server) as first,
            balanced_host.running(base / "b", server) as second,
        ):
            for each in (first, second):
                each.deploy("0")
            yield Balanced(base, consul, token, first, second)


@pytest.fixture(scope="module")
def nginx(balanced: Balanced) -> Iterator[RenderedNginx]:
    """It hides no failure: it asks no other host instead, and leaves none out by itself."""
    source = Path(__file__).parents[1] / "templates" / "main.go"
    program = go_service.compile_program(source, balanced.base / "render")
    template = doc_blocks.changed(
        doc_blocks.read(PAGE, "upstream go-service {"),
        ("{{ .Port }};", "{{ .Port }} max_fails=0;"),
        ("proxy_pass", "proxy_next_upstream off;\n        proxy_pass"),
    )
    folder = balanced.base / "nginx"
    folder.mkdir()
    nginx = RenderedNginx(
        folder, balanced.consul, token=balanced.token, template=template, program=program
    )
    with balancers.running(nginx):
        yield nginx


def wait_for_version(load: Load, host: BalancedHost, version: str) -> None:
    """Wait until clients get new answers of this version from a host."""
    count = len(load.answers)
    wanted = (host.name, version)
    wait_until(lambda: any((each.host, each.version) == wanted for each in load.since(count)), 10)


def test_no_request_fails_over_twenty_deployments(balanced: Balanced, nginx: RenderedNginx) -> None:
    first, second = balanced.first, balanced.second
    serving = "0"
    with load.running(nginx.port) as clients:
        for host in (first, second):
            wait_for_version(clients, host, "0")
        for number, broken in enumerate(DEPLOYMENTS, start=1):
            second.deploy(f"{number}", broken)
            serving = serving if broken else f"{number}"
            wait_for_version(clients, second, serving)
    print(clients.summary(), f"{nginx.rendered - 1} reloads; {leaving(second)}")
    assert clients.failures == []
    assert clients.closed <= (nginx.rendered - 1) * load.KEEPING  # no more than reloads explain
    assert_traffic_was_as_told(clients, second, DEPLOYMENTS)
    assert {each.version for each in clients.answers if each.host == first.name} == {"0"}
    found = second.registered()
    assert found is not None
    assert (found["Meta"]["version"], second.maintenance()) == (serving, None)
    for host in (first, second):
        assert f"127.0.0.1:{host.port} " in nginx.config()


def leaving(host: BalancedHost) -> str:
    """How long after the beginning of block-traffic it was asked yet, at the longest."""
    longest = max(
        when - block
        for block, out, _ in host.out_of_traffic()
        for when, _ in host.requests()
        if block <= when <= out
    )
    return f"asked for {longest:.3f} s after block-traffic began"


def assert_traffic_was_as_told(
    load: Load, host: BalancedHost, deployments: tuple[Broken | None, ...]
) -> None:
    """Every good version has served, no broken one that was noticed in time, none while out."""
    numbered = [(f"{number}", broken) for number, broken in enumerate(deployments, start=1)]
    good = {"0", *(version for version, broken in numbered if broken is GOOD)}
    late = {version for version, broken in numbered if broken is Broken.LATE}
    served = {each.version for each in load.answers if each.host == host.name}
    assert good <= served <= good | late
    # the two that fail in allow-traffic, and after it, are put out a second time
    twice = [broken for broken in deployments if broken in (Broken.LATE, Broken.CHECK)]
    out = host.out_of_traffic()[-len(deployments) - len(twice) :]
    for _, begins, ends in out:
        assert [each for each in host.requests() if begins <= each[0] <= ends] == []


def test_the_same_fails_without_consul_in_the_appspec(
    balanced: Balanced, nginx: RenderedNginx
) -> None:
    """So the load, the service and nginx are such that it can: nobody takes the host out first."""
    host = balanced.second
    host.deploy("plain-1", with_consul=False)
    assert host.registered() is None
    check = {"HTTP": f"http://127.0.0.1:{host.port}/health", "Interval": "200ms"}
    body = {"Name": NAME, "Port": host.port, "Check": check}
    host.consul.ask("PUT", "/v1/agent/service/register", body)
    with load.running(nginx.port) as clients:
        wait_for_version(clients, host, "plain-1")
        host.deploy("plain-2", with_consul=False)
        wait_for_version(clients, host, "plain-2")
    host.consul.ask("PUT", f"/v1/agent/service/deregister/{NAME}", b"")
    print(clients.summary())
    assert set(clients.failures) == {"502 Bad Gateway"}


def test_nginx_stays_when_nobody_takes_traffic(balanced: Balanced, nginx: RenderedNginx) -> None:
    hosts = (balanced.first, balanced.second)
    balanced.second.deploy("drained")
    for host in hosts:
        host.host.ask("PUT", "/v1/drain", {"reason": "both"})
    wait_until(lambda: nginx.status() == 502)
    for host in hosts:
        host.host.ask("DELETE", "/v1/drain", {"application": "service"})
    wait_until(lambda: nginx.status() == 200)


def test_the_unit_of_consul_template(tmp_path: Path) -> None:
    """That program is not to be had here, so another one has its place."""
    path = tmp_path / "consul-template.service"
    unit = doc_blocks.read(PAGE, "ExecStart=/usr/local/bin/consul-template")
    path.write_text(doc_blocks.changed(unit, ("/usr/local/bin/consul-template ", "/bin/true ")))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_haproxy_that_asks_consuls_dns(balanced: Balanced) -> None:
    """It reloads nothing; so not even a kept connection is closed."""
    host = balanced.second
    host.drain = "2s"
    host.deploy("dns-0")
    folder = balanced.base / "haproxy"
    folder.mkdir()
    config = doc_blocks.read(PAGE, "resolvers consul")
    with (
        balancers.running(HAProxy(folder, balanced.consul, config)) as haproxy,
        load.running(haproxy.port) as clients,
    ):
        wait_for_version(clients, balanced.first, "0")
        wait_for_version(clients, host, "dns-0")
        host.deploy("dns-1", Broken.LATE)
        wait_for_version(clients, host, "dns-0")
        host.deploy("dns-2")
        wait_for_version(clients, host, "dns-2")
    print(clients.summary(), leaving(host))
    assert (clients.failures, clients.closed) == ([], 0)
