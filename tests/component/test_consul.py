"""Services, keys, locks and watches on a real Consul: a client agent, and its server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.consul.adapter import Consul
from agent.model.consul import (
    CheckStatus,
    KvSnapshot,
    ServiceCheck,
    ServiceRegistration,
    SessionBehavior,
)
from agent.model.errors import AgentError, Code, NotFound
from tests import consul_server
from tests.consul_server import ConsulAgent
from tests.waiting import wait_until

TTL_CHECK = ServiceCheck(id="web:proved", name="proved by deploy-agent", ttl_seconds=60)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    folder = tmp_path_factory.mktemp("consul")
    server = consul_server.server(folder / "server")
    with consul_server.running(server):
        client = consul_server.client(folder / "client", server)
        with consul_server.running(client):
            yield client


@pytest.fixture
async def consul(host: ConsulAgent) -> AsyncIterator[Consul]:
    consul = Consul(host.settings())
    yield consul
    await consul.close()


def registration(version: str = "1", *checks: ServiceCheck) -> ServiceRegistration:
    meta = {"version": version}
    return ServiceRegistration("web", "web", "", 8080, ("go", "blue"), meta, checks or (TTL_CHECK,))


async def test_a_service_is_critical_until_proved(host: ConsulAgent, consul: Consul) -> None:
    await consul.register(registration())
    found = (await consul.services_here())["web"]
    assert (found.port, found.tags, found.meta) == (8080, ("go", "blue"), {"version": "1"})
    assert (found.status, found.host) == (CheckStatus.CRITICAL, "host-1")
    await consul.set_check("web:proved", CheckStatus.PASSING, "version 1 answers")
    await wait_for_status(consul, "web", CheckStatus.PASSING)
    [seen] = await consul.health("web", is_consistent=True)
    assert [each.output for each in seen.checks if each.id == "web:proved"] == ["version 1 answers"]
    assert seen.address == "127.0.0.1"
    await consul.deregister("web")
    assert await consul.service_here("web") is None
    assert host.ask("GET", "/v1/agent/checks") == {}


async def wait_for_status(consul: Consul, name: str, status: CheckStatus) -> None:
    """The servers are told of a change a moment after the local agent."""
    async with asyncio.timeout(5):
        while [each.status for each in await consul.health(name)] != [status]:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_registering_again_replaces_the_checks(host: ConsulAgent, consul: Consul) -> None:
    extra = ServiceCheck(id="web:tcp", name="port", tcp="127.0.0.1:9", interval_seconds=60)
    await consul.register(registration("1", TTL_CHECK, extra, replace(extra, id="")))
    found = set(host.ask("GET", "/v1/agent/checks"))
    assert found == {"web:proved", "web:tcp", "service:web:3"}
    await consul.register(registration("2", TTL_CHECK))
    assert set(host.ask("GET", "/v1/agent/checks")) == {"web:proved"}
    assert (await consul.services_here())["web"].meta == {"version": "2"}
    await consul.deregister("web")


@pytest.mark.slow
async def test_an_http_check_is_consuls_own_work(host: ConsulAgent, consul: Consul) -> None:
    check = ServiceCheck(
        id="web:http",
        name="status",
        http=f"{host.url}/v1/status/leader",
        interval_seconds=0.1,
        header={"Accept": ("application/json",)},
        successes=2,
    )
    await consul.register(registration("1", check))
    await wait_for_status(consul, "web", CheckStatus.PASSING)
    await consul.deregister("web")


async def test_maintenance_outlives_a_registration(consul: Consul) -> None:
    await consul.register(registration())
    await consul.set_check("web:proved", CheckStatus.PASSING)
    await consul.set_maintenance("web", "deployment d-7: 1.2 & more")
    await wait_for_status(consul, "web", CheckStatus.MAINTENANCE)
    await consul.register(registration("2"))
    found = await consul.service_here("web")
    assert found is not None
    assert (found.status, found.maintenance) == (
        CheckStatus.MAINTENANCE,
        "deployment d-7: 1.2 & more",
    )
    assert [each.status for each in found.checks] == [CheckStatus.CRITICAL]  # not proved yet
    await consul.set_maintenance("web", None)
    await consul.set_maintenance("web", None)
    found = await consul.service_here("web")
    assert found is not None
    assert (found.status, found.maintenance) == (CheckStatus.CRITICAL, None)
    await consul.deregister("web")


async def test_the_hosts_own_maintenance_counts_for_its_services(
    host: ConsulAgent, consul: Consul
) -> None:
    await consul.register(registration())
    host.ask("PUT", "/v1/agent/maintenance?enable=true&reason=disk", b"")
    found = await consul.service_here("web")
    host.ask("PUT", "/v1/agent/maintenance?enable=false", b"")
    assert found is not None
    assert (found.status, found.maintenance) == (CheckStatus.MAINTENANCE, "disk")
    await consul.deregister("web")


async def test_what_is_not_there(consul: Consul) -> None:
    for asked in (
        consul.set_maintenance("nothing", "x"),
        consul.set_check("nothing", CheckStatus.PASSING),
        consul.renew_session("5ca0ee94-67f0-4f5c-b4b8-6d1d0d7a1c11"),
        consul.acquire("deploy/lock", b"", "5ca0ee94-67f0-4f5c-b4b8-6d1d0d7a1c11"),
    ):
        with pytest.raises(NotFound):
            await asked
    await consul.deregister("nothing")
    await consul.destroy_session("5ca0ee94-67f0-4f5c-b4b8-6d1d0d7a1c11")
    assert await consul.health("nothing") == ()
    assert await consul.service_here("nothing") is None
    assert await consul.read_kv("nothing/here") is None
    assert (await consul.read_prefix("nothing/here")).values == {}


async def test_who_is_asked(consul: Consul) -> None:
    found = await consul.read_self()
    assert (found.host, found.datacenter, found.is_server) == ("host-1", "dc1", False)
    assert (await consul.leader()).startswith("127.0.0.1:")


async def test_reload_reads_new_service_files(host: ConsulAgent, consul: Consul) -> None:
    path = host.services_dir / "billing.json"
    path.write_text(json.dumps({"service": {"name": "billing", "port": 81}}))
    await consul.reload_agent()
    assert set(await consul.services_here()) == {"billing"}
    path.unlink()
    await consul.reload_agent()
    assert await consul.services_here() == {}


@pytest.mark.parametrize("key", ["a", "b c", "d/é+%2F&e=?#f", "g:h//".strip("/"), "i/..j"])
async def test_keys_and_values_of_any_kind(host: ConsulAgent, consul: Consul, key: str) -> None:
    value = bytes(range(256))
    assert await consul.put_kv(f"odd/{key}", value)
    entry = await consul.read_kv(f"odd/{key}")
    assert entry is not None
    assert (entry.key, entry.value) == (f"odd/{key}", value)
    assert (await consul.read_prefix("odd", is_consistent=True)).values == {key: value}
    assert await consul.delete_kv(f"odd/{key}")
    assert host.ask("GET", "/v1/kv/odd/?recurse") is None


@pytest.mark.parametrize("key", ["", "/a", "a//b", "a/../b", "a/./b", "a/"])
async def test_keys_that_would_be_others_are_refused(consul: Consul, key: str) -> None:
    with pytest.raises(AgentError) as caught:
        await consul.read_kv(key)
    assert caught.value.code is Code.BAD_REQUEST


async def test_compare_and_set(consul: Consul) -> None:
    assert await consul.put_kv("cas/a", b"", cas=0)
    assert not await consul.put_kv("cas/a", b"2", cas=0)
    entry = await consul.read_kv("cas/a")
    assert entry is not None
    assert entry.value == b""
    assert not await consul.delete_kv("cas/a", cas=entry.modify_index - 1)
    assert await consul.put_kv("cas/a", b"3", cas=entry.modify_index)
    assert await consul.delete_kv("cas/a")


async def test_a_value_that_is_too_large_is_refused_here(consul: Consul) -> None:
    assert await consul.put_kv("large", b"x" * 512 * 1024)
    with pytest.raises(AgentError) as caught:
        await consul.put_kv("large", b"x" * (512 * 1024 + 1))
    assert caught.value.code is Code.CONSUL_REFUSED
    await consul.delete_kv("large")


async def test_a_prefix_is_a_folder(host: ConsulAgent, consul: Consul) -> None:
    for key in ("conf/go/A", "conf/go/sub/B", "conf/go/folder/", "conf/go/", "conf/go-service/C"):
        host.put_kv(key, b"1")
    expected = {"A": b"1", "sub/B": b"1"}
    for written in ("conf/go", "conf/go/", "/conf/go/"):
        found = await consul.read_prefix(written)
        assert (found.prefix, found.values) == ("conf/go/", expected)
    entry = await consul.read_kv("conf/go/sub/B")
    assert entry is not None
    assert found.index > entry.modify_index  # of the folders, which were written later


async def test_a_lock_has_one_holder(consul: Consul) -> None:
    first = await consul.create_session("one", ttl_seconds=10)
    second = await consul.create_session(
        "two", ttl_seconds=10, behavior=SessionBehavior.DELETE, lock_delay_seconds=0
    )
    assert await consul.acquire("deploy/lock", b"one", first)
    assert await consul.acquire("deploy/lock", b"one again", first)
    assert not await consul.acquire("deploy/lock", b"two", second)
    assert not await consul.release("deploy/lock", b"two", second)
    entry = await consul.read_kv("deploy/lock")
    assert entry is not None
    assert (entry.value, entry.session) == (b"one again", first)
    await consul.renew_session(first)
    assert await consul.release("deploy/lock", b"", first)
    assert await consul.acquire("deploy/lock", b"two", second)
    await consul.destroy_session(second)
    assert await consul.read_kv("deploy/lock") is None
    await consul.destroy_session(first)


async def test_sessions_do_not_end_with_the_network(host: ConsulAgent, consul: Consul) -> None:
    session = await consul.create_session("slot", ttl_seconds=10)
    [found] = host.ask("GET", f"/v1/session/info/{session}")
    await consul.destroy_session(session)
    assert not found["NodeChecks"]
    assert not found["ServiceChecks"]


@pytest.mark.slow
async def test_a_watch_tells_each_change_once(host: ConsulAgent, consul: Consul) -> None:
    host.put_kv("watched/a", b"1")
    watch = consul.watch_prefix("watched")
    first = await anext(watch)
    assert first.values == {"a": b"1"}
    waiting = asyncio.create_task(anext_of(watch))
    await asyncio.to_thread(host.put_kv, "elsewhere", b"1")
    await asyncio.to_thread(host.put_kv, "watched/a", b"1")  # no change
    await asyncio.to_thread(host.put_kv, "watched/folder/", b"")  # nor this
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    await asyncio.to_thread(host.put_kv, "watched/b", b"2")
    second = await asyncio.wait_for(waiting, 2)
    assert (second.values, second.index > first.index) == ({"a": b"1", "b": b"2"}, True)


async def anext_of(watch: AsyncIterator[KvSnapshot]) -> KvSnapshot:
    return await anext(watch)


async def test_a_watch_tells_that_everything_was_deleted(host: ConsulAgent, consul: Consul) -> None:
    host.put_kv("doomed/a", b"1")
    watch = consul.watch_prefix("doomed")
    assert (await anext(watch)).values == {"a": b"1"}
    waiting = asyncio.create_task(anext_of(watch))
    await asyncio.to_thread(host.ask, "DELETE", "/v1/kv/doomed/?recurse")
    assert (await asyncio.wait_for(waiting, 2)).values == {}


async def test_the_environment_of_consuls_own_command_counts_for_nothing(
    host: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("CONSUL_HTTP_ADDR", "http://127.0.0.1:9"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_TOKEN", "nobody"),
    ):
        monkeypatch.setenv(name, value)
    consul = Consul(host.settings())
    assert await consul.read_kv("nothing") is None
    await consul.close()


async def test_a_unix_socket(state_dir: Path) -> None:
    path = state_dir / "http.sock"
    server = consul_server.server(state_dir / "server", addresses={"http": f"unix://{path}"})
    try:
        server.start()
        await asyncio.to_thread(wait_until, path.exists, 5)
        consul = Consul(server.settings(address=f"unix://{path}"), patience_seconds=5)
        assert await consul.put_kv("a", b"1")
        await consul.close()
    finally:
        server.stop()


async def test_without_the_library_the_error_says_so(
    host: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "consul"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "consul", None)  # type: ignore[arg-type]
    consul = Consul(host.settings())
    with pytest.raises(AgentError) as caught:
        await consul.read_kv("a")
    await consul.close()
    assert caught.value.code is Code.CONFIG_INVALID
    assert "apt install python3-consul" in caught.value.remedy
