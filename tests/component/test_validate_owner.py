"""An answer counts only if it came from the unit's own processes: real sockets, real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from agent.model.appspec import ServedBy, Service, StatusCheck
from agent.model.errors import AgentError, Code
from agent.system import ownership, processes, status_check
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient
from agent.system.ownership import Owner
from agent.system.status_check import StatusAnswer, Verdict
from agent.system.systemd import Systemd
from tests.listening_process import activated, listening
from tests.status_service import GOOD, json_answer, status_service

UNIT = "go-service.service"


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def owner(*pids: int, since: int = 0) -> Owner:
    async def members() -> Collection[int]:
        return pids

    return Owner(UNIT, members, since)


async def ask(
    client: HttpClient, port: int, who: Owner, *, host: str = "127.0.0.1", **more: str
) -> StatusAnswer:
    check = StatusCheck(f"http://{host}:{port}/status", **more)  # type: ignore[arg-type]
    return await status_check.ask_once(client, check, "1.216", owner=who)


async def test_the_units_own_process_proves_it(client: HttpClient) -> None:
    with listening() as unit:
        assert (await ask(client, unit.port, owner(unit.pid))).verdict is Verdict.PROVED


async def test_an_answer_without_json_is_held_against_the_unit_too(client: HttpClient) -> None:
    with listening() as unit:
        assert (await ask(client, unit.port, owner(unit.pid), version="")).verdict is Verdict.PROVED
        other = await ask(client, unit.port, owner(os.getpid()), version="")
    assert other.verdict is Verdict.FOREIGN


async def test_another_process_on_the_port_is_named(client: HttpClient) -> None:
    with listening() as foreign:
        answer = await ask(client, foreign.port, owner(os.getpid()))
    assert answer.verdict is Verdict.FOREIGN
    assert f"pid {foreign.pid} (" in answer.detail
    assert "tests.listening_process" in answer.detail
    assert f"not of {UNIT}" in answer.detail


async def test_whose_answer_it_was_is_said_before_its_version(client: HttpClient) -> None:
    with status_service(json_answer({**GOOD, "version": "1.215"})) as service:
        answer = await ask(client, int(service.address.split(":")[1]), owner(1))
    assert answer.verdict is Verdict.FOREIGN
    assert answer.reported_version == "1.215"


async def test_a_unit_that_does_not_run_has_not_answered(client: HttpClient) -> None:
    with listening() as foreign:
        assert (await ask(client, foreign.port, owner())).verdict is Verdict.FOREIGN


async def test_a_forked_child_may_hold_the_socket(client: HttpClient) -> None:
    with listening(forks=True) as unit:
        both = await ask(client, unit.port, owner(unit.parent, unit.pid))
        parent = await ask(client, unit.port, owner(unit.parent))
    assert both.verdict is Verdict.PROVED
    assert parent.verdict is Verdict.FOREIGN


async def test_a_socket_that_systemd_holds_as_well_is_the_units(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, activated(listener) as unit:
        answer = await ask(client, unit.port, owner(unit.pid))
    assert answer.verdict is Verdict.PROVED


async def test_a_port_shared_with_somebody_else_proves_nothing(client: HttpClient) -> None:
    with listening(shared=True) as unit, listening(port=unit.port, shared=True) as foreign:
        answer = await ask(client, unit.port, owner(unit.pid))
        both = await ask(client, unit.port, owner(unit.pid, foreign.pid))
    assert answer.verdict is Verdict.FOREIGN
    assert f"pid {foreign.pid} (" in answer.detail
    assert both.verdict is Verdict.PROVED


async def test_a_more_specific_address_of_somebody_else_wins(client: HttpClient) -> None:
    with (
        listening("0.0.0.0", shared=True) as unit,
        listening("127.0.0.1", unit.port, shared=True) as foreign,
    ):
        answer = await ask(client, unit.port, owner(unit.pid))
        elsewhere = await ask(client, unit.port, owner(unit.pid), host="127.0.0.2")
    assert answer.verdict is Verdict.FOREIGN
    assert f"pid {foreign.pid} (" in answer.detail
    assert elsewhere.verdict is Verdict.PROVED


async def test_a_wildcard_of_somebody_else_does_not_matter(client: HttpClient) -> None:
    with (
        listening("127.0.0.1", shared=True) as unit,
        listening("0.0.0.0", unit.port, shared=True),
    ):
        assert (await ask(client, unit.port, owner(unit.pid))).verdict is Verdict.PROVED


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_dual_stack_socket_serves_both_families(client: HttpClient, host: str) -> None:
    with listening("::") as unit:
        answer = await ask(client, unit.port, owner(unit.pid), host=host)
        other = await ask(client, unit.port, owner(os.getpid()), host=host)
    assert answer.verdict is Verdict.PROVED, answer.detail
    assert other.verdict is Verdict.FOREIGN


async def test_a_process_from_before_the_deployment_proves_nothing(client: HttpClient) -> None:
    with listening() as unit:
        started = await asyncio.to_thread(processes.read_process, unit.pid)
        assert started is not None
        same = await ask(client, unit.port, owner(unit.pid, since=started.start))
        later = await ask(client, unit.port, owner(unit.pid, since=started.start + 1))
    assert same.verdict is Verdict.PROVED
    assert later.verdict is Verdict.FOREIGN
    assert "was not started by this deployment" in later.detail
    assert f"of {UNIT}" in later.detail


async def test_another_hosts_address_is_not_the_units() -> None:
    # the unit has the port on all addresses of this host; 192.0.2.1 is none (RFC 5737)
    with listening("0.0.0.0") as unit:
        stranger = await ownership.find_stranger(owner(unit.pid), ("192.0.2.1", unit.port))
    assert "192.0.2.1, which is no address of this host" in stranger


async def test_a_port_on_which_nobody_listens_was_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stranger = await ownership.find_stranger(owner(os.getpid()), ("127.0.0.1", port))
    assert f"nobody who listens on port {port}" in stranger


async def test_where_systemd_does_not_say_the_answer_does_not_count() -> None:
    async def no_answer() -> Collection[int]:
        raise AgentError("cannot ask systemd about x: no answer", code=Code.UNIT_FAILED)

    with status_service() as service:
        port = int(service.address.split(":")[1])
        stranger = await ownership.find_stranger(Owner(UNIT, no_answer), ("127.0.0.1", port))
    assert "cannot ask systemd about x" in stranger


@pytest.mark.slow
async def test_a_unit_that_listens_a_little_later_is_waited_for(
    client: HttpClient, tmp_path: Path
) -> None:
    """First an old process answers, then the unit's own."""
    old, new = contextlib.ExitStack(), contextlib.ExitStack()
    port = old.enter_context(listening()).port
    started: list[int] = []

    def replace() -> None:
        old.close()
        started.append(new.enter_context(listening(port=port)).pid)

    async def members() -> Collection[int]:
        if not started:
            await asyncio.to_thread(replace)
            return ()
        return started

    url = f"http://127.0.0.1:{port}/status"
    check = StatusCheck(url, within_seconds=5.0, stable_for_seconds=0.0)
    log = DeploymentLog(tmp_path / "log")
    with old, new:
        answer = await status_check.check_service(
            client, check, "1.216", cancel=Cancel(), log=log, owner=Owner(UNIT, members)
        )
    assert answer.verdict is Verdict.PROVED


async def test_the_refusal_names_who_answered_and_what_to_type(
    client: HttpClient, tmp_path: Path
) -> None:
    with listening() as foreign:
        url = f"http://127.0.0.1:{foreign.port}/status"
        check = StatusCheck(url, within_seconds=0.0, stable_for_seconds=0.0)
        with pytest.raises(AgentError) as caught:
            await status_check.check_service(
                client,
                check,
                "1.216",
                cancel=Cancel(),
                log=DeploymentLog(tmp_path / "log"),
                owner=owner(os.getpid()),
            )
    error = caught.value
    assert error.code is Code.STATUS_FOREIGN
    assert error.message.startswith(
        f"cannot validate {url}: the answer came from pid {foreign.pid}"
    )
    assert f"ss -ltnp 'sport = :{foreign.port}'" in error.remedy


def test_who_has_to_answer() -> None:
    status = StatusCheck("http://127.0.0.1/status")
    proxied = StatusCheck("http://127.0.0.1/status", served_by=ServedBy.ANY)
    assert ownership.owner_of(Service(UNIT, status=status), None) is None
    assert ownership.owner_of(Service(status=status), Systemd()) is None
    assert ownership.owner_of(Service(UNIT, status=proxied), Systemd()) is None
    found = ownership.owner_of(Service(UNIT, status=status), Systemd())
    assert found is not None
    assert (found.unit, found.since) == (UNIT, 0)


def test_this_very_moment_in_ticks() -> None:
    began = processes.read_process(os.getpid())
    assert began is not None
    found = ownership.owner_of(
        Service(UNIT, status=StatusCheck("http://localhost/")), Systemd(), since=1.0
    )
    assert found is not None
    assert found.since < began.start
