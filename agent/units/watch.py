"""See that units stay up as they were started, while something else proves the revision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from agent.model.errors import AgentError
from agent.system.deployment_log import DeploymentLog
from agent.system.systemd import Systemd
from agent.units import failure
from agent.units.lines import UnitLines
from agent.units.record import Started

DEFAULT_SECONDS = 5.0
"""How long a unit without a status endpoint has to stay up."""

_PAUSE_SECONDS = 0.25

T = TypeVar("T")


async def check_units(systemd: Systemd, started: Mapping[str, Started]) -> None:
    """See that each unit runs as it was started; raises AgentError (UNIT_FAILED) for the first."""
    states = await systemd.states(started)
    now = time.time()
    for unit, since in started.items():
        if failure.find_trouble(states[unit], since, now):
            raise await failure.make_error(f"keep {unit} running", states[unit], since)


class UnitWatch:
    """Watches the units of one deployment; what they write goes to its log."""

    def __init__(
        self, systemd: Systemd, log: DeploymentLog, started: Mapping[str, Started], cursor: str
    ) -> None:
        self._systemd = systemd
        self._started = started
        self._lines = UnitLines(log, started, cursor)

    @property
    def cursor(self) -> str:
        """Of the journal: what the units wrote until there is in the log."""
        return self._lines.cursor

    async def during(self, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
        """The result of `work`, and the units stay up until its end, for `seconds` at least.

        A unit that does not stay up ends the work at once. Where both fail, the unit's failure is
        raised, as the cause of the other. Raises AgentError, and what `work` raises.
        """
        begun = time.monotonic()
        await self._lines.start()
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                left = begun + seconds - time.monotonic()
                if working.exception() is None and left > 0:
                    await asyncio.wait({watching}, timeout=left)
                await self._check(working.exception())
            else:
                await watching
            return await working
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)
            await self._lines.finish()

    async def _watch(self) -> None:
        """Ends only by raising."""
        while True:
            await self._check(None)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _check(self, cause: BaseException | None) -> None:
        try:
            await check_units(self._systemd, self._started)
        except AgentError as error:
            raise error from cause
