"""Proving a revision by its status endpoint, against real services on loopback."""

from __future__ import annotations

import dataclasses
import gzip
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.model.appspec import Match, StatusCheck
from agent.model.errors import AgentError, Code, Interrupted
from agent.system import status_check
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient
from agent.system.status_check import StatusAnswer, Verdict
from tests.status_service import GOOD, StatusService, http_answer, json_answer, status_service

HEALTHY = (("/Database", "Good"), ("/Status for SQS queue", "Healthy"))
PACKED = gzip.compress(json.dumps(GOOD).encode())


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
def log(tmp_path: Path) -> DeploymentLog:
    return DeploymentLog(tmp_path / "log")


def check_of(service: StatusService, **changes: object) -> StatusCheck:
    check = StatusCheck(service.url, healthy=HEALTHY, within_seconds=0.0, stable_for_seconds=0.0)
    return dataclasses.replace(check, **changes)  # type: ignore[arg-type]


async def prove(
    client: HttpClient, log: DeploymentLog, check: StatusCheck, version: str = "1.216"
) -> StatusAnswer:
    return await status_check.check_service(client, check, version, cancel=Cancel(), log=log)


async def refusal(
    client: HttpClient, log: DeploymentLog, check: StatusCheck, version: str = "1.216"
) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await prove(client, log, check, version)
    return caught.value


@pytest.mark.slow
async def test_the_right_version_is_proved_and_has_to_stay(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service() as service:
        began = time.monotonic()
        answer = await prove(client, log, check_of(service, stable_for_seconds=0.6))
    assert answer.verdict is Verdict.PROVED
    assert answer.reported_version == "1.216"
    assert time.monotonic() - began >= 0.6
    assert service.asked >= 3


async def test_another_version_is_refused_with_both_versions(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service(json_answer({**GOOD, "version": "1.215"})) as service:
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.VERSION_MISMATCH
    assert "'1.215'" in error.message
    assert "'1.216'" in error.message
    assert error.where == service.url
    assert error.remedy
    assert any(f"asked {service.asked} times" in line for line in error.details)


async def test_the_first_part_of_a_version_is_not_the_version(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service() as service:
        error = await refusal(client, log, check_of(service), version="1.21")
        assert error.code is Code.VERSION_MISMATCH
        with pytest.raises(AgentError):
            await prove(client, log, check_of(service, match=Match.PREFIX), version="1.21")


@pytest.mark.parametrize("version", [None, "", {"name": "1.216"}, ["1.216"]])
async def test_no_version_in_the_answer_fails_closed(
    client: HttpClient, log: DeploymentLog, version: object
) -> None:
    with status_service(json_answer({**GOOD, "version": version})) as service:
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.VERSION_MISMATCH
    assert "version: off" in error.remedy


async def test_a_revision_without_a_version_fails_closed(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service(json_answer({**GOOD, "version": ""})) as service:
        error = await refusal(client, log, check_of(service), version="")
    assert error.code is Code.VERSION_MISMATCH


async def test_a_version_written_as_a_number_keeps_its_digits(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service(http_answer(b'{"version": 1.210}')) as service:
        check = check_of(service, healthy=())
        assert (await prove(client, log, check, "1.210")).reported_version == "1.210"


@pytest.mark.parametrize(
    ("component", "shown"),
    [("Bad", "'Bad', not 'Good'"), (None, "no /Database"), (False, "'false', not 'Good'")],
)
async def test_an_unhealthy_component_is_named(
    client: HttpClient, log: DeploymentLog, component: object, shown: str
) -> None:
    with status_service(json_answer({**GOOD, "Database": component})) as service:
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.STATUS_UNHEALTHY
    assert "/Database" in error.message
    assert shown in error.message


@pytest.mark.parametrize("status", ["503 Unavailable", "201 Created", "404 Not Found"])
async def test_only_200_counts(client: HttpClient, log: DeploymentLog, status: str) -> None:
    with status_service(json_answer(GOOD, status)) as service:
        error = await refusal(client, log, check_of(service))
        assert error.code is Code.STATUS_UNHEALTHY
        assert f"HTTP {status[:3]}" in error.message
        error = await refusal(client, log, check_of(service, version="", healthy=()))
        assert error.code is Code.STATUS_UNHEALTHY


async def test_a_redirect_is_not_followed(client: HttpClient, log: DeploymentLog) -> None:
    with status_service() as good:
        moved = http_answer(b"", "302 Found", f"Location: {good.url}\r\n")
        with status_service(moved) as service:
            error = await refusal(client, log, check_of(service))
        assert good.asked == 0
    assert error.code is Code.STATUS_UNHEALTHY
    assert "HTTP 302" in error.message


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (http_answer(b"<html>welcome</html>"), "not JSON: '<html>welcome"),
        (http_answer(b"[" * 100_000), "not JSON"),
        (http_answer(b""), "not JSON"),
        (http_answer(PACKED, headers="Content-Encoding: gzip\r\n"), "not JSON"),
        (http_answer(json.dumps({**GOOD, "x": "y" * 2**20}).encode()), "larger than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}", "cut off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"", "closed without an answer"),
    ],
)
async def test_what_is_no_answer_says_why(
    client: HttpClient, log: DeploymentLog, answer: bytes, cause: str
) -> None:
    with status_service(answer) as service:
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.STATUS_UNREACHABLE
    assert cause in error.message
    assert len(error.message) < 300


async def test_nothing_that_listens(client: HttpClient, log: DeploymentLog) -> None:
    service = StatusService()
    error = await refusal(client, log, check_of(service))
    service.close()
    assert error.code is Code.STATUS_UNREACHABLE
    assert "connection refused" in error.message


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "status", "http://127.0.0.1:99999/"]
)
async def test_what_is_no_url(client: HttpClient, log: DeploymentLog, url: str) -> None:
    check = StatusCheck(url, within_seconds=0.0)
    assert (await refusal(client, log, check)).code is Code.STATUS_UNREACHABLE


@pytest.mark.slow
async def test_a_slow_answer_is_cut(client: HttpClient, log: DeploymentLog) -> None:
    def answer(_: int) -> Iterator[bytes]:
        service.stopped.wait(30)
        yield json_answer(GOOD)

    with status_service(answer) as service:
        began = time.monotonic()
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.STATUS_UNREACHABLE
    assert "no answer within 1 s" in error.message
    assert time.monotonic() - began < 3


@pytest.mark.slow
async def test_an_endless_trickle_is_cut(client: HttpClient, log: DeploymentLog) -> None:
    def answer(_: int) -> Iterator[bytes]:
        yield b'HTTP/1.1 200 OK\r\n\r\n{"version": "1.216", "padding": "'
        while not service.stopped.wait(0.02):
            yield b"x"

    with status_service(answer) as service:
        began = time.monotonic()
        error = await refusal(client, log, check_of(service))
    assert error.code is Code.STATUS_UNREACHABLE
    assert time.monotonic() - began < 3


@pytest.mark.slow
async def test_flapping_never_counts_as_stable(client: HttpClient, log: DeploymentLog) -> None:
    def answer(number: int) -> bytes:
        return json_answer(GOOD if number % 2 else {**GOOD, "Database": "Bad"})

    with status_service(answer) as service:
        began = time.monotonic()
        check = check_of(service, within_seconds=1.0, stable_for_seconds=1.0)
        error = await refusal(client, log, check)
    assert error.code is Code.STATUS_UNHEALTHY
    assert any("stay so for 1 s" in line for line in error.details)
    assert time.monotonic() - began < 3


@pytest.mark.slow
async def test_a_relapse_begins_the_wait_anew(client: HttpClient, log: DeploymentLog) -> None:
    def answer(number: int) -> bytes:
        return json_answer(GOOD if number != 2 else {**GOOD, "version": "1.215"})

    with status_service(answer) as service:
        began = time.monotonic()
        check = check_of(service, within_seconds=5.0, stable_for_seconds=0.5)
        assert (await prove(client, log, check)).verdict is Verdict.PROVED
    assert time.monotonic() - began >= 0.5 + 0.25  # the time before the relapse does not count


@pytest.mark.slow
async def test_a_service_that_comes_up_late(client: HttpClient, log: DeploymentLog) -> None:
    service = StatusService()
    late = threading.Timer(0.4, service.listen)
    late.start()
    answer = await prove(client, log, check_of(service, within_seconds=5.0))
    late.join()
    service.close()
    assert answer.verdict is Verdict.PROVED


@pytest.mark.slow
async def test_the_old_process_answers_first(client: HttpClient, log: DeploymentLog) -> None:
    def answer(number: int) -> bytes:
        return json_answer({**GOOD, "version": "1.215"} if number < 3 else GOOD)

    with status_service(answer) as service:
        check = check_of(service, within_seconds=5.0)
        assert (await prove(client, log, check)).reported_version == "1.216"


@pytest.mark.slow
async def test_cancel_ends_the_wait(client: HttpClient, log: DeploymentLog) -> None:
    cancel = Cancel()
    with status_service(json_answer({})) as service:
        check = check_of(service, within_seconds=60.0)
        threading.Timer(0.3, cancel.set, ["aborted by a test"]).start()
        began = time.monotonic()
        with pytest.raises(Interrupted, match="aborted by a test"):
            await status_check.check_service(client, check, "1.216", cancel=cancel, log=log)
    assert time.monotonic() - began < 2


async def test_ipv6(client: HttpClient, log: DeploymentLog) -> None:
    try:
        with status_service(family=socket.AF_INET6) as service:
            assert (await prove(client, log, check_of(service))).verdict is Verdict.PROVED
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")


async def test_nothing_but_the_compared_fields_is_shown(
    client: HttpClient, log: DeploymentLog
) -> None:
    content = {"version": "1.215", "password": "hunter2", "Database": "Bad"}
    with status_service(json_answer(content)) as service:
        url = f"http://ops:hunter3@{service.address}/status?token=hunter4"
        error = await refusal(client, log, check_of(service, url=url))
    shown = "\n".join([error.message, *error.details, error.remedy, error.where])
    assert "hunter" not in shown
    assert "hunter" not in log.path.read_text()
    assert "'Bad'" in shown


async def test_control_characters_do_not_reach_the_terminal(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service(json_answer({**GOOD, "version": "\x1b[2J\n" + "9" * 5000})) as service:
        error = await refusal(client, log, check_of(service))
    assert error.message.isprintable()
    assert len(error.message) < 400


async def test_version_off_and_no_components_asks_for_200_only(
    client: HttpClient, log: DeploymentLog
) -> None:
    with status_service(http_answer(b"OK")) as service:
        answer = await prove(client, log, check_of(service, version="", healthy=()))
    assert answer.verdict is Verdict.PROVED


async def test_proxies_of_the_environment_are_not_used(
    client: HttpClient, log: DeploymentLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with status_service() as service:
        assert (await prove(client, log, check_of(service))).verdict is Verdict.PROVED


async def test_ask_once_asks_once_and_raises_nothing(client: HttpClient) -> None:
    with status_service(json_answer({**GOOD, "Database": "Bad"})) as service:
        answer = await status_check.ask_once(client, check_of(service), "1.216")
        assert answer.verdict is Verdict.UNHEALTHY
        assert service.asked == 1
    answer = await status_check.ask_once(client, check_of(service), "1.216")
    assert answer.verdict is Verdict.UNREACHABLE
