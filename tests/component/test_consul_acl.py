"""ACLs that deny by default: what the documented policy is enough for, and what is said without."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.consul.adapter import Consul
from agent.model.consul import CheckStatus, KvSnapshot, ServiceCheck, ServiceRegistration
from agent.model.errors import AgentError, Code
from agent.model.settings import ConsulSettings
from tests import consul_server
from tests.consul_server import LEAST_POLICY, ConsulAgent
from tests.status_service import http_answer, status_service
from tests.waiting import wait_until_async

UNKNOWN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    folder = tmp_path_factory.mktemp("consul")
    server = consul_server.server(folder / "server", **consul_server.ACLS)
    with consul_server.running(server):
        client = consul_server.client(folder / "client", server, **consul_server.ACLS)
        with consul_server.running(client):
            consul_server.bootstrap_acls(server, client)
            yield client


@asynccontextmanager
async def consul_with(host: ConsulAgent, token: str, path: Path) -> AsyncIterator[Consul]:
    await asyncio.to_thread(path.write_text, f"{token}\n")
    consul = Consul(host.settings(token_file=str(path)))
    try:
        yield consul
    finally:
        await consul.close()


async def denied(asked: Awaitable[object]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await asked
    assert caught.value.code is Code.CONSUL_DENIED, caught.value
    return caught.value


def registration(name: str) -> ServiceRegistration:
    checks = (ServiceCheck(id=f"{name}:proved", name="proved", ttl_seconds=60),)
    return ServiceRegistration(name, name, port=8080, checks=checks)


def test_the_documented_policy_is_the_tested_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "consul.md").read_text()
    [block] = re.findall(r"```hcl\n(.*?)```", page, re.DOTALL)
    rules = {line.split("#")[0].strip() for line in block.splitlines()}
    assert rules - {""} == set(LEAST_POLICY.strip().splitlines())


async def test_the_documented_policy_is_enough(host: ConsulAgent, tmp_path: Path) -> None:
    token = consul_server.make_token(host, "least")
    host.put_kv("config/go-service/A", b"1")
    async with consul_with(host, token, tmp_path / "token") as consul:
        await consul.register(registration("go-service"))
        await consul.set_maintenance("go-service", "drain")
        await consul.register(registration("go-service"))
        await consul.set_check("go-service:proved", CheckStatus.PASSING)
        await consul.set_maintenance("go-service", None)
        async with asyncio.timeout(5):
            while not await consul.health("go-service"):  # noqa: ASYNC110 - told in a moment
                await asyncio.sleep(0)
        assert set(await consul.services_here()) == {"go-service"}
        assert (await consul.read_prefix("config/go-service")).values == {"A": b"1"}
        session = await consul.create_session("slot", ttl_seconds=10)
        assert await consul.acquire("deploy/lock", b"", session)
        assert await consul.release("deploy/lock", b"", session)
        await consul.renew_session(session)
        await consul.destroy_session(session)
        assert await consul.put_kv("deploy/hosts/host-1", b"1")
        assert (await consul.read_prefix("deploy")).values["hosts/host-1"] == b"1"
        assert await consul.read_kv("deploy/hosts/host-2") is None
        await consul.reload_agent()
        assert (await consul.read_self()).host == "host-1"
        await consul.deregister("go-service")
        assert await consul.service_here("go-service") is None
        await consul.deregister("go-service")
        await consul.deregister("never-seen")


async def test_each_denial_names_the_missing_rule(host: ConsulAgent, tmp_path: Path) -> None:
    token = consul_server.make_token(host, "nothing", 'key_prefix "x/" { policy = "read" }')
    host.ask("PUT", "/v1/agent/service/register", {"Name": "hidden"})
    async with consul_with(host, token, tmp_path / "token") as consul:
        expected: list[tuple[Callable[[], Awaitable[object]], str]] = [
            (lambda: consul.register(registration("web")), 'service "web" { policy = "write" }'),
            (
                lambda: consul.set_maintenance("hidden", "x"),
                'service "hidden" { policy = "write" }',
            ),
            (lambda: consul.deregister("hidden"), 'service "hidden" { policy = "write" }'),
            (lambda: consul.service_here("hidden"), 'service "hidden" { policy = "read" }'),
            (lambda: consul.health("hidden"), 'service "hidden" { policy = "read" }'),
            (lambda: consul.read_kv("deploy/a"), 'key "deploy/a" { policy = "read" }'),
            (lambda: consul.read_prefix("deploy"), 'key_prefix "deploy/" { policy = "read" }'),
            (lambda: consul.put_kv("deploy/a", b""), 'key "deploy/a" { policy = "write" }'),
            (lambda: consul.delete_kv("deploy/a"), 'key "deploy/a" { policy = "write" }'),
            (
                lambda: consul.create_session("a", ttl_seconds=10),
                'session_prefix "" { policy = "write" }',
            ),
            (consul.read_self, 'agent_prefix "" { policy = "read" }'),
            (consul.reload_agent, 'agent_prefix "" { policy = "write" }'),
        ]
        for ask, rule in expected:
            error = await denied(ask())
            assert rule in error.remedy, error
            assert token not in f"{error} {error.details} {error.remedy}"
        assert await consul.services_here() == {}  # filtered: that is why service_here is there
    host.ask("PUT", "/v1/agent/service/deregister/hidden", b"")


async def test_without_a_token(host: ConsulAgent) -> None:
    consul = Consul(host.settings())
    error = await denied(consul.read_kv("deploy/a"))
    await consul.close()
    assert "consul.token_file" in error.remedy


async def test_an_unknown_token_then_the_right_one(host: ConsulAgent, tmp_path: Path) -> None:
    path = tmp_path / "token"
    async with consul_with(host, UNKNOWN, path) as consul:
        await denied(consul.deregister("never-seen"))
        error = await denied(consul.read_kv("deploy/a"))
        assert str(path) in error.message
        assert UNKNOWN not in f"{error} {error.details} {error.remedy}"
        assert consul.problem is error
        path.write_text(consul_server.make_token(host, "right"))
        assert await consul.read_kv("deploy/a") is None
        assert consul.problem is None
        path.unlink()  # for a moment, by a program that renews it
        assert await consul.read_kv("deploy/a") is None
        path.write_text("")
        assert await consul.read_kv("deploy/a") is None


async def test_a_token_file_that_is_missing(host: ConsulAgent, tmp_path: Path) -> None:
    consul = Consul(host.settings(token_file=str(tmp_path / "none")))
    with pytest.raises(AgentError) as caught:
        await consul.read_kv("deploy/a")
    await consul.close()
    assert caught.value.code is Code.CONFIG_INVALID
    assert str(tmp_path / "none") in caught.value.message


async def test_a_token_as_a_credential_of_the_unit(
    host: ConsulAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "consul").write_text(consul_server.make_token(host, "credential"))
    consul = Consul(host.settings(token_file="consul"))
    with pytest.raises(AgentError) as caught:
        await consul.read_kv("deploy/a")
    assert "LoadCredential=consul:" in caught.value.remedy
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert await consul.read_kv("deploy/a") is None
    await consul.close()


async def test_a_token_is_replaced_under_a_watch(host: ConsulAgent, tmp_path: Path) -> None:
    path = tmp_path / "token"
    old, new = (consul_server.make_token(host, name) for name in ("old", "new"))
    host.put_kv("deploy/rotated/a", b"1")
    async with consul_with(host, old, path) as consul:
        watch = consul.watch_prefix("deploy/rotated")
        assert (await anext(watch)).values == {"a": b"1"}
        waiting = asyncio.create_task(next_of(watch))
        path.write_text(new)
        await asyncio.to_thread(delete_token, host, "old")
        await asyncio.to_thread(host.put_kv, "deploy/rotated/a", b"2")
        assert (await asyncio.wait_for(waiting, 5)).values == {"a": b"2"}
        assert watch.problem is None


async def test_a_token_that_was_replaced_during_a_question(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    def answer(number: int) -> bytes:
        if number > 1:
            return http_answer(b"true")
        path.write_text("newer")
        return http_answer(b"ACL not found", "403 Forbidden")

    with status_service(answer) as service:
        settings = ConsulSettings(f"http://{service.address}", token_file=str(path))
        consul = Consul(settings, patience_seconds=0)
        assert await consul.put_kv("a", b"1", cas=0)
        await consul.close()


async def next_of(watch: AsyncIterator[KvSnapshot]) -> KvSnapshot:
    return await anext(watch)


def delete_token(host: ConsulAgent, name: str) -> None:
    found = host.ask("GET", "/v1/acl/tokens")
    [token] = [each for each in found if each["Description"] == name]
    host.ask("DELETE", f"/v1/acl/token/{token['AccessorID']}")


async def test_a_lost_permission_is_no_empty_prefix(host: ConsulAgent, tmp_path: Path) -> None:
    rules = 'key_prefix "deploy/" { policy = "read" }'
    token = consul_server.make_token(host, "narrowed", rules)
    host.put_kv("deploy/lost/a", b"1")
    async with consul_with(host, token, tmp_path / "token") as consul:
        watch = consul.watch_prefix("deploy/lost")
        assert (await anext(watch)).values == {"a": b"1"}
        waiting = asyncio.create_task(next_of(watch))
        change = consul_server.change_policy
        await asyncio.to_thread(change, host, "narrowed", 'key_prefix "x/" { policy = "read" }')
        await asyncio.to_thread(host.put_kv, "deploy/lost/b", b"2")
        await wait_until_async(lambda: watch.problem is not None)
        assert watch.problem is not None
        assert watch.problem.code is Code.CONSUL_DENIED
        await denied(consul.read_prefix("deploy/lost"))
        assert not waiting.done()
        await asyncio.to_thread(change, host, "narrowed", rules)
        assert (await asyncio.wait_for(waiting, 5)).values == {"a": b"1", "b": b"2"}
        assert watch.problem is None
