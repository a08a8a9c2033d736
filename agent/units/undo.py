"""Take back what a deployment did to the units: enabled and running as they were recorded.

It looks at what is there, so it may run again, and after a boot in between, which starts what is
enabled at that time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from agent.model.appspec import Service
from agent.model.errors import AgentError
from agent.units import failure
from agent.units.control import ENABLED, UnitControl
from agent.units.lines import UnitLines
from agent.units.record import Before


async def undo_start(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Stop the new revision's, and disable those that were not enabled; raises AgentError."""
    await stop_strangers(units, services)
    before = (await units.load()).before
    # while their files are there: without them it cannot be done
    await units.disable(
        unit for unit in services if unit in before and before[unit].enablement not in ENABLED
    )


async def stop_strangers(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Stop those that do not run just as they did before; raises AgentError.

    That is what this deployment started, and what a boot in between started, or is about to.
    """
    before = (await units.load()).before
    for unit, service in services.items():
        if unit in before:
            state = await units.systemd.state(unit)
            was = before[unit]
            is_as_before = was.was_running and was.invocation == state.invocation
            if not (state.is_running and is_as_before):
                await units.stop_one(service)


async def put_back(units: UnitControl, services: Mapping[str, Service]) -> None:
    """Enablement and running state as recorded; raises AgentError after all were tried."""
    before = (await units.load()).before
    failures: list[AgentError] = []
    enabled = [name for name, each in before.items() if each.enablement in ENABLED]
    disabled = [name for name, each in before.items() if each.enablement == "disabled"]
    await _try(failures, units.enable(enabled))
    await _try(failures, units.disable(disabled))
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
