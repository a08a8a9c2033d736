"""A real Consul that has had enough: 429 beyond its rpc_rate, closed connections beyond its most.

Consul 1.8.7 answers 429 where its agent asks the servers more often than `limits.rpc_rate`, and
closes, without a word, what is beyond `limits.http_max_conns_per_client`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.consul.adapter import Consul
from agent.model.consul import ServiceRegistration
from agent.model.errors import Code, TransientError
from tests import consul_server, traffic_scene
from tests.consul_server import ConsulAgent
from tests.traffic_scene import NAME, PREFIX, Scene
from tests.waiting import wait_until, wait_until_async

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

NO_LIMIT = {"rpc_rate": -1, "rpc_max_burst": 1000, "http_max_conns_per_client": 200}
RATE_LIMIT = {"rpc_rate": 0.001, "rpc_max_burst": 1}
MOST = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with traffic_scene.acl_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def scene(state_dir: Path, server: ConsulAgent) -> Iterator[Scene]:
    with traffic_scene.scene(state_dir, server) as scene:
        yield scene
    server.ask("DELETE", "/v1/kv/config?recurse")


def limit(consul: ConsulAgent, limits: dict[str, Any]) -> None:
    """Consul reads its limits again at a reload."""
    consul.change(limits=limits)
    consul.ask("PUT", "/v1/agent/reload", b"")


def bundle(scene: Scene, version: str) -> Path:
    environment = f"prefix: {PREFIX}, file: {scene.base}/etc/env, on_change: none"
    return scene.bundle(version, environment=environment)


def put(server: ConsulAgent, value: str) -> None:
    server.put_kv(f"{PREFIX}/A", value.encode())


def told(scene: Scene) -> dict[str, Any]:
    """What status says of the application."""
    [application] = scene.host.ask("GET", "/v1/status")["applications"]
    return dict(application)


def problem(scene: Scene) -> str:
    """Why the keys cannot be read now."""
    return str(told(scene)["environment"]["files"][0]["problem"])


async def test_calls_and_a_watch_over_a_rate_limit(state_dir: Path) -> None:
    server = consul_server.server(state_dir / "server")
    client = consul_server.client(state_dir / "client", server)
    with consul_server.running(server, client):
        client.put_kv("watched/a", b"1")
        consul = Consul(client.settings(), patience_seconds=0.3)
        watch = consul.watch_prefix("watched")
        assert (await anext(watch)).values == {"a": b"1"}
        limit(client, RATE_LIMIT)

        async def following() -> Any:
            return await anext(watch)

        waiting = asyncio.create_task(following())
        server.put_kv("watched/a", b"2")  # ends its question, and the next one is one too many
        await wait_until_async(lambda: watch.problem is not None)
        assert "429" in str(watch.problem)
        with pytest.raises(TransientError, match="Consul says 429") as caught:
            await consul.put_kv("other", b"")
        assert caught.value.code is Code.CONSUL_UNREACHABLE
        assert "limits.rpc_rate" in caught.value.remedy
        await consul.register(ServiceRegistration("web", "web"))  # the local agent's: no limit
        limit(client, NO_LIMIT)
        assert (await asyncio.wait_for(waiting, 10)).values == {"a": b"2"}
        assert await consul.put_kv("other", b"")
        assert (watch.problem, consul.problem) == (None, None)
        await consul.close()


def test_deployment_and_change_over_a_rate_limit(scene: Scene, server: ConsulAgent) -> None:
    put(server, "1")
    scene.host.deploy_good(bundle(scene, "1"))
    limit(scene.consul, RATE_LIMIT)
    put(server, "2")
    wait_until(lambda: "Consul says 429" in problem(scene))

    view = scene.host.deploy_good(bundle(scene, "2"))
    assert "out of traffic" in scene.note(view, "block-traffic")
    assert scene.environment() == {"A": '"1"'}
    log = scene.host.client.stream(f"/v1/deployments/{view['id']}/log")
    assert any("Consul says 429" in each["line"] for each in log)
    broken = scene.host.deploy(scene.bundle("3-bad"))
    assert broken["outcome"] == "rolled_back"
    assert (scene.host.serving(), scene.version(), scene.maintenance()) == ("2", "2", None)

    limit(scene.consul, NO_LIMIT)
    wait_until(lambda: scene.environment() == {"A": '"2"'}, 40)
    wait_until(lambda: problem(scene) == "")
    scene.wait_for_traffic()


def test_deployment_and_change_while_others_have_all_connections(
    scene: Scene, server: ConsulAgent
) -> None:
    put(server, "1")
    scene.host.deploy_good(bundle(scene, "1"))
    scene.consul.change(limits=NO_LIMIT | {"http_max_conns_per_client": MOST})
    scene.consul.stop()
    scene.consul.start()
    scene.consul.wait_for_leader()
    wait_until(lambda: problem(scene) == "")
    with taken(scene.consul):
        wait_until(lambda: "closed without an answer" in told(scene)["consul"]["problem"], 10)
        view = scene.host.deploy_good(bundle(scene, "2"))
        note = scene.note(view, "allow-traffic")
        assert "closed without an answer" in note
        assert "it is told later" in note
        assert scene.host.serving() == "2"
    put(server, "2")
    wait_until(lambda: scene.environment() == {"A": '"2"'}, 40)
    wait_until(lambda: scene.version() == "2", 40)
    wait_until(lambda: told(scene)["consul"]["problem"] == "")
    wait_until(lambda: scene.maintenance() is None)
    assert scene.registered(NAME) is not None


@contextmanager
def taken(consul: ConsulAgent) -> Iterator[None]:
    """Connections of another client of this address, until Consul takes no more."""
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(socket.create_connection(("127.0.0.1", consul.http_port)))
        yield
