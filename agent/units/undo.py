"""Take back what a deployment did to the units: enabled and running as they were recorded.

It looks at what is there, so it may run again, and after a boot in between, which starts what is
enabled at that time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping
from contextlib import suppress

from agent.model.appspec import Service
from agent.model.errors import AgentError, Code, from_os_error
from agent.units import failure, unitfiles
from agent.units.control import ENABLED, UnitControl
from agent.units.lines import UnitLines
from agent.units.record import Before


async def undo_start(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Stop what was started, and enable no more what was not enabled; raises AgentError.

    services: by unit, for their time limits.
    """
    await stop_strangers(units, services)
    await _remove_links(units)


async def stop_strangers(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Stop those that do not run just as they did before; raises AgentError.

    That is what this deployment started, and what a boot in between started, or is about to.
    """
    for unit, was in (await units.load()).before.items():
        state = await units.systemd.state(unit)
        is_as_before = was.was_running and was.invocation == state.invocation
        if not (state.is_running and is_as_before):
            await units.stop_one(services.get(unit, Service(unit=unit)))


async def _remove_links(units: UnitControl) -> None:
    """Remove the links that were not there: of units, and of what an [Install] section added.

    `systemctl disable` would remove those of before as well, and needs the unit's file.
    """
    if await asyncio.to_thread(_remove_new_links, (await units.load()).before):
        await units.reload()


def _remove_new_links(before: Mapping[str, Before]) -> bool:
    """Whether there were any."""
    found = [
        path
        for unit, was in before.items()
        for path in {*unitfiles.find_links(unit)} - {*was.links}
    ]
    for path in found:
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as error:
            raise from_os_error(error, f"remove {path}", code=Code.UNIT_FAILED) from error
    return bool(found)


async def put_back(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Enablement and running state as recorded; raises AgentError after all were tried."""
    before = (await units.load()).before
    failures: list[AgentError] = []
    enabled = [
        unit
        for unit, was in before.items()
        if was.enablement in ENABLED and await units.systemd.enablement(unit) not in ENABLED
    ]
    await _try(failures, _remove_links(units))
    await _try(failures, units.enable(enabled))
    for unit, was in before.items():
        service = services.get(unit, Service(unit=unit))
        await _try(failures, _put_back(units, service, was))
    if failures:
        first, *others = failures
        first.details += tuple(each.message for each in others)
        raise first


async def _put_back(units: UnitControl, service: Service, was: Before) -> None:
    unit = service.unit
    if not was.was_running:
        await units.stop_one(service)
    elif not failure.is_up(await units.systemd.state(unit)):
        lines = UnitLines(units.log, [unit], "")
        await lines.start()
        try:
            await units.start_one(service, ())
        except AgentError:
            if was.was_up:
                raise
            units.log.line(f"warning: {unit} does not stay up, as it did not before")
        finally:
            await lines.finish()
    if was.active != "failed" and (await units.systemd.state(unit)).active == "failed":
        await units.systemd.reset_failed(unit)


async def _try(failures: list[AgentError], work: Awaitable[None]) -> None:
    try:
        await work
    except AgentError as error:
        failures.append(error)
