"""A source that hangs is what stops the watchdog's beat; a deployment that runs is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import heartbeat
from agent.daemon import Daemon, Options
from agent.heartbeat import Heartbeat
from agent.model.deployment import Deployment, Revision
from agent.model.errors import Code, TransientError
from agent.model.settings import Settings
from agent.poller import Poller
from agent.queue import DeploymentQueue
from agent.system.unix_socket import UnixSocket
from tests.waiting import wait_until_async


class Source:
    """Answers when it is let; "away" raises."""

    poll_seconds = 0.05
    longest_pause_seconds = 0.05

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.is_away = False

    def __str__(self) -> str:
        return "source of the test"

    async def desired(self) -> list[Revision]:
        await self.gate.wait()
        if self.is_away:
            raise TransientError("cannot ask", code=Code.SOURCE_UNAVAILABLE, remedy="Wait")
        return []

    async def report(self, _deployment: Deployment) -> None:
        """Nothing is reported."""

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
async def poller(state_dir: Path) -> AsyncIterator[Poller]:
    settings = Settings(state_dir=state_dir / "state", run_dir=state_dir / "run")
    daemon = await asyncio.to_thread(Daemon, settings, Options(settings.run_dir / "sock"))
    queue = DeploymentQueue(daemon._equipment)
    poller = Poller(Source(), daemon._state, queue)
    running = asyncio.create_task(poller.run())
    yield poller
    poller.source.gate.set()  # type: ignore[attr-defined]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.to_thread(daemon._state.close)


async def test_source_that_hangs_stops_the_beat(
    poller: Poller,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[dict[str, str]] = []
    monkeypatch.setattr(heartbeat.journal, "notify", lambda **said: told.append(said) or True)
    monkeypatch.setattr(heartbeat, "_STUCK_SECONDS", 0.05)
    server = UnixSocket(state_dir / "sock", asyncio.Protocol)
    await server.listen()
    beating = Heartbeat(poller._queue, [poller], server)
    await wait_until_async(beating._stuck)
    await beating.beat()
    await beating.beat()
    assert {"WATCHDOG": "1"} not in told
    assert [each.message for each in caplog.records].count(
        "source of the test has not answered for 0.05 s: systemd will start the agent anew"
    ) == 1
    poller.source.gate.set()  # type: ignore[attr-defined]
    await wait_until_async(lambda: not beating._stuck())
    await beating.beat()
    assert told[-1] == {"WATCHDOG": "1"}
    assert {"STATUS": "waiting: source of the test: nothing desired"} in told
    server.close()


async def test_problem_of_a_source_is_told_once_and_its_end(
    poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent.poller")
    source = poller.source
    assert isinstance(source, Source)
    source.is_away = True
    source.gate.set()

    async def wait_for(sentence: str) -> None:
        await wait_until_async(lambda: poller.decision == sentence)

    await wait_for("source of the test: cannot ask")
    # one question without an answer is no news, the next one is
    await wait_until_async(lambda: len(caplog.records) == 1)
    source.is_away = False
    await wait_for("source of the test: nothing desired")
    assert [each.message for each in caplog.records] == [
        "source of the test: cannot ask. Wait",
        "source of the test answers again",
        "source of the test: nothing desired",
    ]
