"""Consul away, restarted, frozen, without a leader, or overloaded: real ones, and a stand-in.

That a leader is lost, and another one elected: test_consul_leader.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import pytest

from agent.consul.adapter import Consul
from agent.model.consul import KvSnapshot, ServiceRegistration
from agent.model.errors import AgentError, Code, TransientError
from agent.model.settings import ConsulSettings
from tests import consul_server
from tests.consul_server import ConsulAgent
from tests.status_service import http_answer, status_service
from tests.waiting import wait_until, wait_until_async

WEB = ServiceRegistration("web", "web", port=80)


async def away(asked: Awaitable[object]) -> TransientError:
    with pytest.raises(TransientError) as caught:
        await asked
    assert caught.value.code is Code.CONSUL_UNREACHABLE
    return caught.value


async def next_of(watch: AsyncIterator[KvSnapshot]) -> KvSnapshot:
    return await anext(watch)


@pytest.fixture
def server(state_dir: Path) -> Iterator[ConsulAgent]:
    server = consul_server.server(state_dir / "server")
    with consul_server.running(server):
        yield server


async def test_nothing_listens() -> None:
    [port] = consul_server.free_ports(1)
    consul = Consul(ConsulSettings(f"http://127.0.0.1:{port}"), patience_seconds=0.5)
    began = time.monotonic()
    error = await away(consul.register(WEB))
    assert 0.1 < time.monotonic() - began < 2
    assert error.message == (
        f"cannot register the service web in Consul at http://127.0.0.1:{port}: connection refused"
    )
    assert consul.problem is error
    await consul.close()


async def test_a_socket_or_a_name_that_is_not_there(state_dir: Path) -> None:
    for address, cause in (
        (f"unix://{state_dir}/http.sock", "no such file or directory"),
        ("http://consul.invalid:8500", "name"),
    ):
        consul = Consul(ConsulSettings(address), patience_seconds=0)
        error = await away(consul.read_kv("a"))
        assert f"at {address}: " in error.message
        assert cause in error.message.rpartition(": ")[2]
        await consul.close()


async def test_a_restart_is_waited_for(server: ConsulAgent) -> None:
    consul = Consul(server.settings(), patience_seconds=8)
    await consul.read_kv("a")
    server.stop()
    reading = asyncio.create_task(consul.read_kv("a"))
    await wait_until_async(lambda: consul.problem is not None)
    server.start()
    assert await reading is None
    assert consul.problem is None
    await consul.close()


async def test_a_consul_that_is_frozen(server: ConsulAgent) -> None:
    consul = Consul(server.settings(), patience_seconds=0.1, answer_seconds=0.3)
    await consul.read_kv("a")
    server.freeze()
    error = await away(consul.read_kv("a"))
    server.thaw()
    assert "no answer within 0.3 s" in error.message
    await consul.close()


@pytest.mark.slow
async def test_a_watch_goes_on_after_a_restart_that_forgot_everything(server: ConsulAgent) -> None:
    """The index begins again: one that is ahead of the server would wait for years."""
    for number in range(50):
        server.put_kv(f"elsewhere/{number}", b"")
    server.put_kv("watched/a", b"1")
    consul = Consul(server.settings(), patience_seconds=0)
    watch = consul.watch_prefix("watched")
    first = await anext(watch)
    waiting = asyncio.create_task(next_of(watch))
    await asyncio.to_thread(server.stop)
    await wait_until_async(lambda: watch.problem is not None)
    assert watch.problem is not None
    assert watch.problem.code is Code.CONSUL_UNREACHABLE
    server.start()
    second = await asyncio.wait_for(waiting, 5)
    assert (second.values, second.index < first.index) == ({}, True)  # it is empty now, really
    waiting = asyncio.create_task(next_of(watch))
    await asyncio.to_thread(server.put_kv, "watched/a", b"2")
    assert (await asyncio.wait_for(waiting, 5)).values == {"a": b"2"}
    assert watch.problem is None
    await consul.close()


async def test_services_are_handled_while_the_servers_are_gone(
    server: ConsulAgent, state_dir: Path
) -> None:
    client = consul_server.client(state_dir / "client", server)
    with consul_server.running(client):
        consul = Consul(client.settings(), patience_seconds=0.2)
        await asyncio.to_thread(server.stop)
        error = await away(consul.read_kv("deploy/a"))
        assert "Consul says 500" in error.message
        await away(consul.read_prefix("deploy"))
        await away(consul.health("web"))
        await consul.register(WEB)
        await consul.set_maintenance("web", "deployment d-1")
        found = await consul.service_here("web")
        assert found is not None
        assert found.maintenance == "deployment d-1"
        await consul.set_maintenance("web", None)
        await consul.deregister("web")
        await consul.close()


@pytest.mark.slow
async def test_servers_without_a_leader(state_dir: Path) -> None:
    # Consul itself holds a call for 7 s, to see whether a leader is elected
    lonely = consul_server.lasting_server(
        state_dir / "lonely",
        bootstrap_expect=3,
        performance={"raft_multiplier": 1, "rpc_hold_timeout": "100ms"},
    )
    try:
        lonely.start()
        await asyncio.to_thread(wait_until, lambda: answers(lonely), 5)
        consul = Consul(lonely.settings(), patience_seconds=0.2)
        assert await consul.leader() == ""
        error = await away(consul.read_kv("a"))
        assert "No cluster leader" in error.message
        await away(consul.put_kv("a", b""))
        await away(consul.create_session("a", ttl_seconds=10))
        await consul.close()
    finally:
        lonely.stop()


def answers(agent: ConsulAgent) -> bool:
    try:
        agent.ask("GET", "/v1/agent/services")
    except OSError:
        return False
    return True


OVERLOADED = http_answer(b"rate limit exceeded", "429 Too Many Requests")


async def test_429_is_tried_again_a_little_later() -> None:
    with status_service(
        lambda number: OVERLOADED if number < 3 else http_answer(b"true")
    ) as service:
        consul = Consul(ConsulSettings(f"http://{service.address}"))
        assert await consul.put_kv("a", b"1")
        await consul.close()
        assert service.asked == 3


async def test_429_without_an_end_is_transient() -> None:
    with status_service(OVERLOADED) as service:
        consul = Consul(ConsulSettings(f"http://{service.address}"), patience_seconds=0.3)
        error = await away(consul.read_kv("a"))
        assert "Consul says 429: rate limit exceeded" in error.message
        asked = service.asked
        assert 1 < asked < 6
        await away(consul.put_kv("a", b"1", cas=7))
        assert service.asked == asked + 1  # it may have been done, and would then say no
        await consul.close()


async def test_something_else_answers() -> None:
    with status_service(http_answer(b"<html>hello</html>")) as service:
        consul = Consul(ConsulSettings(f"http://{service.address}"))
        for asked in (consul.read_kv("a"), consul.services_here(), consul.put_kv("a", b"")):
            with pytest.raises(AgentError) as caught:
                await asked
            assert caught.value.code is Code.CONSUL_REFUSED
            assert "does not answer as Consul does" in caught.value.message
        await consul.close()


@pytest.mark.slow
async def test_a_watch_never_becomes_a_hot_loop() -> None:
    """A Consul that is going down ends each blocking query at once, with the same index."""
    entry = json.dumps([{"Key": "w/a", "Value": "MQ==", "ModifyIndex": 7}]).encode()
    with status_service(http_answer(entry, headers="X-Consul-Index: 7\r\n")) as service:
        consul = Consul(ConsulSettings(f"http://{service.address}"))
        watch = consul.watch_prefix("w")
        assert (await anext(watch)).values == {"a": b"1"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(next_of(watch), 1.0)
        await consul.close()
        assert service.asked < 12
