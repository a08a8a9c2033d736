"""Stop, start and put back the units of one deployment; each may be done again."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Collection, Coroutine, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from agent.model.appspec import AppSpec, Service
from agent.model.errors import AgentError, Code
from agent.system import journal_reader
from agent.system.deployment_log import DeploymentLog
from agent.system.systemd import Systemd, UnitState
from agent.units import failure, record, unitfiles, watch
from agent.units.lines import UnitLines
from agent.units.record import Before, Record, Scene, Started

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KILL_SECONDS = 10.0  # a unit that outlives KILL so long is stuck in the kernel
_ENABLEABLE = ("enabled", "disabled", "indirect", "linked", "linked-runtime", "enabled-runtime")
ENABLED = ("enabled", "alias")


class Choice(StrEnum):
    """What the start step does with a unit."""

    START = "start"
    RESTART = "restart"
    LEAVE = "leave"


_DONE = {
    Choice.START: "started",
    Choice.RESTART: "restarted",
    Choice.LEAVE: "left as a hook has started it",
}


def with_units(appspec: AppSpec) -> tuple[Service, ...]:
    """The services that name a unit, in their order."""
    return tuple(service for service in appspec.services if service.unit)


def choose_start(state: UnitState, old: Collection[str]) -> Choice:
    """What to do so that a process of the new revision runs.

    old: invocations that are older than the new revision's ApplicationStart. One that is younger
    was made by that hook, and is left.
    """
    if state.is_running and state.invocation in old:
        return Choice.RESTART
    return Choice.LEAVE if failure.is_up(state) else Choice.START


class UnitControl:
    """The units of one deployment, and what is recorded of them in its work_dir."""

    def __init__(self, systemd: Systemd, work_dir: Path, log: DeploymentLog) -> None:
        self.systemd = systemd
        self.log = log
        self._work_dir = work_dir

    async def load(self) -> Record:
        """What is recorded; empty where nothing is."""
        return await asyncio.to_thread(record.load, self._work_dir) or Record()

    async def change(self, known: Record, **changes: object) -> Record:
        """Save a changed record; raises AgentError."""
        changed = dataclasses.replace(known, **changes)  # type: ignore[arg-type]
        await asyncio.to_thread(record.save, self._work_dir, changed)
        return changed

    async def record_before(self, units: Iterable[str]) -> None:
        """Save what the units are now, once in a deployment: what is there is kept."""
        if await asyncio.to_thread(record.load, self._work_dir) is not None:
            return
        states = await self.systemd.states(units)
        before = {
            name: Before(
                active=state.active,
                sub=state.sub,
                enablement=await self.systemd.enablement(name),
                invocation=state.invocation,
                links=await asyncio.to_thread(unitfiles.find_links, name),
            )
            for name, state in states.items()
        }
        await self.change(Record(), before=before)

    # unit files

    async def note_reload_due(self, *, is_due: bool) -> None:
        """Save that unit files are about to change, or that they did not."""
        known = await self.load()
        if known.reload_due is not is_due:
            await self.change(known, reload_due=is_due)

    async def reload(self) -> None:
        """Let systemd read its unit files again; raises AgentError."""
        await self.systemd.reload()
        self.log.line("systemd has read its unit files again")

    async def reload_after_undo(self, *, changed: bool) -> None:
        """Reload where files were put back, now or before a crash; raises AgentError."""
        known = await self.load()
        if changed or known.reload_due:
            await self.reload()
        if known.reload_due:
            try:
                await self.change(known, reload_due=False)
            except AgentError as error:  # reloading again does no harm
                self.log.line(f"warning: {error.message}")

    # stop

    async def stop(self, services: Sequence[Service]) -> list[str]:
        """Stop them, the last one first; a remark on each that did not stop by itself.

        What would start a service again, such as its socket, is stopped before it. Raises
        AgentError where not even KILL helps.
        """
        others = [each for each in services if not each.unit.endswith(".service")]
        ordered = [*reversed(others), *(each for each in reversed(services) if each not in others)]
        return [note for each in ordered if (note := await self.stop_one(each))]

    async def disable(self, units: Iterable[str]) -> None:
        """Do not start these at boot any more; those that are not enabled are left."""
        found = [name for name in units if await self.systemd.enablement(name) in ENABLED]
        if found:
            await self.systemd.disable(found)
            self.log.line(f"{', '.join(found)}: disabled")

    async def stop_one(self, service: Service) -> str:
        """Stop one, also one that is only about to start; see stop()."""
        unit, began = service.unit, time.monotonic()
        was = await self.systemd.state(unit)
        if not was.is_known and was.active == "inactive":
            return ""  # without its file, it may run all the same
        note = ""
        try:
            await self.systemd.stop(unit, timeout_seconds=service.stop_timeout_seconds)
        except AgentError:
            if time.monotonic() - began < service.stop_timeout_seconds:
                raise
            note = f"{unit} did not stop within {service.stop_timeout_seconds:g} s: killed"
            await self._kill(unit)
        state = await self.systemd.state(unit)
        if was.is_running and state.result == "timeout":
            note = note or f"{unit} did not stop in its TimeoutStopSec=: systemd killed it"
        if state.active == "failed":
            await self.systemd.reset_failed(unit)
        if note or was.is_running:
            self.log.line(f"warning: {note}" if note else f"{unit}: stopped")
        return note

    async def _kill(self, unit: str) -> None:
        await self.systemd.kill(unit, "KILL")
        try:
            await self.systemd.stop(unit, timeout_seconds=_KILL_SECONDS)
        except AgentError as error:
            state = await self.systemd.state(unit)
            raise AgentError(
                f"cannot stop {unit}: not even KILL ended it",
                code=Code.UNIT_FAILED,
                details=(str(state), error.message),
                remedy=f"See what it waits for: systemctl status {unit}",
                where=unit,
            ) from error

    # start

    async def look(self, services: Sequence[Service]) -> Scene:
        """How it is before the hooks that may start the units; saved once in a deployment."""
        known = await self.load()
        if known.scene is not None:
            return known.scene  # the agent was restarted in this step, and goes on with it
        states = await self.systemd.states(each.unit for each in services)
        try:
            cursor = await journal_reader.newest_cursor()
        except AgentError as error:
            logger.warning("what units say is not shown: %s", error.message)
            cursor = ""
        running = {name: each.invocation for name, each in states.items() if each.is_running}
        scene = Scene(running, cursor)
        await self.change(known, scene=scene)
        return scene

    async def start(self, services: Sequence[Service], scene: Scene) -> str:
        """Enable and start them in their order; what was done with each. Raises AgentError."""
        known = await self.load()
        units = [each.unit for each in services]
        await self.enable(units)
        lines = UnitLines(self.log, units, scene.cursor)
        await lines.start()
        started: dict[str, Started] = {}
        notes = []
        try:
            for service in services:
                unit = service.unit
                old = {scene.invocations.get(unit, "")}
                if unit in known.before:
                    old.add(known.before[unit].invocation)
                note, started[unit] = await self.start_one(service, old - {""})
                notes.append(note)
        finally:
            await lines.finish()
        boot = await asyncio.to_thread(record.boot_id)
        await self.change(known, started=started, boot=boot, cursor=lines.cursor)
        return "; ".join(notes)

    async def enable(self, units: Iterable[str]) -> None:
        """Start these at boot from now on, as far as their [Install] sections say so."""
        # those that are enabled, too: their [Install] sections may be others now
        found = [name for name in units if await self.systemd.enablement(name) in _ENABLEABLE]
        if found and await self.systemd.enable(found):
            self.log.line(f"{', '.join(found)}: enabled")

    async def start_one(self, service: Service, old: Collection[str]) -> tuple[str, Started]:
        """Start one; what was done, and how it is then. Raises AgentError with its last words."""
        unit, began = service.unit, time.time()
        choice = choose_start(await self.systemd.state(unit), old)
        problem = ""
        if choice is not Choice.LEAVE:
            await self.systemd.reset_failed(unit)  # else the old one's failures count as well
            begin = self.systemd.start if choice is Choice.START else self.systemd.restart
            try:
                await begin(unit, timeout_seconds=service.start_timeout_seconds)
            except AgentError as error:
                problem = error.message.partition(": ")[2]
        state = await self.systemd.state(unit)
        started = Started(state.invocation, 0, began)
        trouble = failure.find_trouble(state, started, time.time())
        if not (problem or trouble):
            self.log.line(f"{unit}: {_DONE[choice]}, is {state.active} ({state.sub})")
            return f"{unit} {_DONE[choice]}", started
        # systemd's own words only where it did not come to start it
        cause = "" if trouble and failure.has_begun(state) else problem
        raise await failure.make_error(f"start {unit}", state, started, cause=cause)

    # validate

    async def ensure_started(self, services: Sequence[Service]) -> None:
        """Start them where the host was booted since they were started; raises AgentError.

        What is enabled runs again then, with another invocation, and the rest does not.
        """
        known = await self.load()
        if known.boot != await asyncio.to_thread(record.boot_id):
            self.log.line("the host was booted since the units were started")
            await self.start(services, Scene({}, ""))

    async def watched(self, work: Coroutine[Any, Any, T], *, seconds: float) -> T:
        """The result of `work`, while what was started stays up: see watch.UnitWatch.during."""
        known = await self.load()
        watching = watch.UnitWatch(self.systemd, self.log, known.started, known.cursor)
        try:
            return await watching.during(work, seconds=seconds)
        finally:
            try:
                await self.change(known, cursor=watching.cursor)
            except AgentError as error:  # at worst, some lines are shown twice
                self.log.line(f"warning: {error.message}")
