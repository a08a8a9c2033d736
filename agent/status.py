"""What `agentctl status` tells: asked for anew each time, down to the services themselves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent import __version__, views
from agent.equipment import Equipment
from agent.formats import appspec as appspec_format
from agent.model.appspec import AppSpec
from agent.model.consul import ServiceHealth
from agent.model.deployment import Current, Deployment, Status
from agent.model.errors import AgentError, Code, NotFound
from agent.model.release import Layout
from agent.poller import Poller
from agent.queue import DeploymentQueue
from agent.system import ownership, status_check
from agent.system.status_check import Verdict
from agent.traffic import registration
from agent.units import control, failure

if TYPE_CHECKING:  # only hosts with Consul load it
    from agent.upkeep.keywatch import KeyWatch
    from agent.upkeep.registrations import Registrations, Wanted

_ASK_SECONDS = 1.0


class StatusView:
    """Puts status together from state, queue, pollers and the status endpoints."""

    def __init__(
        self,
        equipment: Equipment,
        queue: DeploymentQueue,
        pollers: Sequence[Poller],
        registrations: Registrations | None,
        keys: KeyWatch | None,
    ) -> None:
        self._equipment = equipment
        self._registrations = registrations
        self._queue = queue
        self._pollers = pollers
        self._keys = keys
        self._started_at = time.time()
        self._appspecs: dict[str, AppSpec] = {}

    def agent(self) -> dict[str, Any]:
        """Version, pid and start of the agent itself."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "state_dir": str(self._equipment.settings.state_dir),
        }

    async def read(self, application: str | None) -> dict[str, Any]:
        """The whole status, or that of one application; raises NotFound."""
        state = self._equipment.state
        known = await asyncio.to_thread(state.applications)
        if application is not None and application not in known:
            raise NotFound(
                f"cannot find application {application!r} on this host",
                code=Code.NOT_FOUND,
                details=(f"known here: {', '.join(known) or 'none'}",),
                remedy="See: agentctl status",
            )
        shown = known if application is None else [application]
        sources = [
            {"source": str(each.source), "decision": each.decision, "problem": each.problem}
            for each in self._pollers
        ]
        return {
            "agent": {
                **self.agent(),
                "decision": "; ".join(each.decision for each in self._pollers),
                "sources": sources,
            },
            "hold": views.hold_view(await asyncio.to_thread(state.hold)),
            "applications": await asyncio.gather(*(self._application(name) for name in shown)),
        }

    async def _application(self, name: str) -> dict[str, Any]:
        state = self._equipment.state
        current, previous, known, quarantined = await asyncio.to_thread(
            lambda: (
                state.current(name),
                state.previous(name),
                state.deployments(name, 50),
                state.quarantined(name),
            )
        )
        running = self._queue.running
        is_running = running is not None and running.deployment.revision.application == name
        waiting = [each for each in known if each.status is Status.PENDING]
        last = next((each for each in known if each.outcome is not None and each.ended_at), None)
        newest = known[0] if known else None
        return {
            "application": name,
            "group": newest.revision.group if newest else "",
            "current": views.current_view(current),
            "previous": views.current_view(previous),
            "running": views.running_view(running.record, aborting=bool(running.abort_reason))
            if running is not None and is_running
            else None,
            "waiting": [views.deployment_view(each) for each in reversed(waiting)],
            "last": last and await self._with_steps(last),
            "quarantined": [views.quarantine_view(each) for each in quarantined],
            "health": await self._health(current),
            "environment": None if self._keys is None else await self._keys.view(name),
            "consul": await self._consul(name),
        }

    async def _consul(self, name: str) -> dict[str, Any] | None:
        """What Consul says of its services at this moment; None where it has none there."""
        if self._registrations is None:
            return None
        problem = self._registrations.problems.get(name, "")
        found: dict[str, ServiceHealth] | None = None
        try:
            wanted = await self._registrations.wanted(name)
        except AgentError as error:  # of its appspec
            return {"services": [], "drain": None, "problem": error.message}
        if not wanted.services and not wanted.ids:
            return None
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found = await self._registrations.find(name, wanted)
        except (
            TimeoutError
        ):  # Consul's calls are patient, and say between their tries what is wrong
            known = self._equipment.consul and self._equipment.consul.problem
            late = f"Consul has not answered within {_ASK_SECONDS:g} s"
            problem = problem or (known.line if known else late)
        except AgentError as error:
            problem = error.line
        drain = await asyncio.to_thread(self._registrations.drains.of, name)
        return {
            "services": _registrations(name, wanted, found),
            "drain": views.drain_view(drain),
            "problem": problem,
        }

    async def _with_steps(self, deployment: Deployment) -> dict[str, Any]:
        steps = await asyncio.to_thread(self._equipment.state.steps, deployment.id)
        return views.whole_view(deployment, steps)

    async def _health(self, current: Current | None) -> dict[str, Any]:
        """What its units and the current revision's own status endpoints say at this moment."""
        if current is None:
            return _health("unknown", "nothing is deployed")
        try:
            appspec = await asyncio.to_thread(self._appspec, current)
            units = await self._units(appspec)
        except AgentError as error:
            return _health("unknown", error.message)
        health = await self._ask(appspec, current.revision.version)
        down = next((each["trouble"] for each in units if each["trouble"]), "")
        if down:
            health = {**health, "state": "unhealthy", "detail": down}
        elif units and health["state"] == "unchecked":
            names = ", ".join(each["unit"] for each in units)
            health = _health("healthy", f"{names} up; the appspec names no status endpoint")
        return {**health, "units": units}

    async def _units(self, appspec: AppSpec) -> list[dict[str, Any]]:
        """The states of its units; raises AgentError where systemd does not answer."""
        systemd = self._equipment.systemd
        names = [service.unit for service in control.with_units(appspec)]
        if systemd is None or not names:
            return []
        states = await systemd.states(names)
        enablements = await asyncio.gather(*map(systemd.enablement, names))
        return [
            views.unit_view(name, states[name], enablement, failure.find_fault(states[name]))
            for name, enablement in zip(names, enablements, strict=True)
        ]

    async def _ask(self, appspec: AppSpec, version: str) -> dict[str, Any]:
        questions = [
            status_check.ask_once(
                self._equipment.http,
                service.status,
                version,
                owner=ownership.owner_of(service, self._equipment.systemd),
                timeout_seconds=_ASK_SECONDS,
            )
            for service in appspec.services
            if service.status is not None
        ]
        if not questions:
            return _health("unchecked", "the appspec names no status endpoint")
        answers = await asyncio.gather(*questions)
        worst = next((each for each in answers if each.verdict is not Verdict.PROVED), answers[0])
        healthy = worst.verdict is Verdict.PROVED
        return _health("healthy" if healthy else "unhealthy", worst.detail, worst.reported_version)

    def _appspec(self, current: Current) -> AppSpec:
        known = self._appspecs.get(current.release)
        if known is None:
            layout = Layout(self._equipment.settings.state_dir)
            known, _ = appspec_format.load_appspec(layout.releases / current.release)
            if len(self._appspecs) > 100:
                self._appspecs.clear()
            self._appspecs[current.release] = known
        return known


def _registrations(
    application: str, wanted: Wanted, found: dict[str, ServiceHealth] | None
) -> list[dict[str, Any]]:
    """found: None where Consul did not answer."""
    here = found or {}
    by_id = {each: here.get(each) for each in wanted.ids}
    for service, _ in wanted.services:
        stranger = registration.find_stranger(application, service, here.values())
        by_id[service.id] = here.get(service.id) or stranger
    return [
        views.registration_view(name, each, is_known=found is not None)
        for name, each in by_id.items()
    ]


def _health(state: str, detail: str, reported: str = "") -> dict[str, Any]:
    return {"state": state, "detail": detail, "reported_version": reported, "units": []}
