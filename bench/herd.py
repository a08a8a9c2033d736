"""Many agents on one store: how often they ask, while it answers, while it is away, and after."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agent.daemon import Daemon, Options
from agent.formats import manifest
from agent.model.manifest import BundleRef, Manifest
from agent.model.settings import Settings, SourceSettings, SourceType
from agent.poller import Poller
from agent.queue import DeploymentQueue
from agent.sources.gate import Gate
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys
from agent.sources.pointer import PointerSource

AGENTS = 500
POLL_SECONDS = 5.0  # a third of the default, so that it does not take all day
STEADY_SECONDS = 20
AWAY_SECONDS = 40
AFTER_SECONDS = 60


@dataclass
class Store:
    """A pointer in a store that can be away. seconds: requests by second since the beginning."""

    text: bytes
    is_away: bool = False

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.seconds: Counter[int] = Counter()
        self.answered: set[str] = set()

    async def answer(self, request: web.Request) -> web.Response:
        """The pointer, 304 or 503."""
        self.seconds[int(time.monotonic() - self.begun)] += 1
        if self.is_away:
            return web.Response(status=503)
        self.answered.add(request.path)
        etag = f'"{hashlib.sha256(self.text).hexdigest()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=self.text, headers={"ETag": etag})

    def rates(self, first: int, last: int) -> tuple[float, int]:
        """Requests a second between two seconds: on average, and of the worst second."""
        counts = [self.seconds[each] for each in range(first, last)]
        return sum(counts) / len(counts), max(counts)


def measure(work: Path) -> None:
    """Print the request rates of the agents."""
    logging.disable()  # 500 agents say that the store is away
    asyncio.run(_measure(work))


async def _measure(work: Path) -> None:
    digest = "0" * 64
    text = manifest.dump_manifest(
        Manifest(
            version="1",
            application="service",
            deployment_group="default",
            bundle=BundleRef(f"{digest}.zip", digest, 1),
            serial=1,
        )
    )
    store = Store(text)
    async with _served(store) as url, _agents(work, url):
        await asyncio.sleep(STEADY_SECONDS)
        store.is_away = True
        away_at = int(time.monotonic() - store.begun) + 1
        await asyncio.sleep(AWAY_SECONDS)
        store.is_away, store.answered = False, set()
        back_at = int(time.monotonic() - store.begun) + 1
        back = time.monotonic()
        times = []
        while time.monotonic() - back < AFTER_SECONDS:
            await asyncio.sleep(0.5)
            times.append((len(store.answered), time.monotonic() - back))
    everybody = next((seconds for count, seconds in times if count >= AGENTS), None)
    half = next((seconds for count, seconds in times if count >= AGENTS / 2), None)
    print(f"h  {AGENTS} agents on one store, each asks every {POLL_SECONDS:g} s: requests a second")
    for name, first, last in (
        ("while it answers", int(POLL_SECONDS), STEADY_SECONDS),
        ("the first 10 s of an outage (503)", away_at, away_at + 10),
        ("the rest of the outage", away_at + 10, back_at - 1),
        ("the first 10 s after it", back_at, back_at + 10),
        (f"the next {AFTER_SECONDS - 11} s", back_at + 10, back_at + AFTER_SECONDS - 1),
    ):
        average, worst = store.rates(first, last)
        print(f"   {average:8.1f} on average, {worst:4} in the worst second: {name}")
    print(f"   half of them were back after {_shown(half)}, all after {_shown(everybody)}")


def _shown(seconds: float | None) -> str:
    return "more than a minute" if seconds is None else f"{seconds:.0f} s"


@asynccontextmanager
async def _served(store: Store) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", store.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _agents(work: Path, url: str) -> AsyncIterator[None]:
    """The pollers of many agents in this process; they share a state, whose deployments wait."""
    settings = Settings(state_dir=work / "herd", run_dir=work / "herd", keys_dir=work / "no-keys")
    daemon = Daemon(settings, Options(work / "herd" / "socket", polls=False))
    equipment = daemon._equipment  # noqa: SLF001 - a daemon of 500 pollers is made nowhere else
    queue = DeploymentQueue(equipment)
    group = HostGroup(settings)
    gate = Gate(Keys(settings.keys_dir), seen=lambda *_: 0, remember=lambda *_: None)
    pollers = []
    for number in range(AGENTS):
        source = SourceSettings(
            type=SourceType.HTTP,
            url=f"{url}/{number}/release.json",
            application="service",
            poll_seconds=POLL_SECONDS,
        )
        pollers.append(Poller(PointerSource(source, gate, group), equipment.state, queue))
    running = [asyncio.create_task(each.run()) for each in pollers]
    try:
        yield
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
