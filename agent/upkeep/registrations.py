"""Keeps what Consul knows of the committed revisions as it should be, and tells status of it.

A deployment does its own part (agent.traffic). This is for all that it could not do, since Consul
was away or denied it, for a Consul that has lost what it knew, and for what people drain. It
touches what the agent has registered itself, and an answer without entries removes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.equipment import Equipment
from agent.formats import appspec as appspec_format
from agent.model.appspec import ConsulService
from agent.model.consul import ServiceHealth, ServiceRegistration
from agent.model.deployment import Current, Outcome
from agent.model.errors import AgentError, Code, NotFound
from agent.model.messages import Message
from agent.model.release import Layout
from agent.queue import DeploymentQueue
from agent.store.drains import Drain, Drains
from agent.traffic import definitions, lookup, registration

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 2.0  # of a Consul that is being restarted, or of a host that boots
_SAY_AGAIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of an application ought to be in Consul.

    services: with the registrations that they should have. ids: of those that its files define.
    """

    services: tuple[tuple[ConsulService, ServiceRegistration], ...] = ()
    ids: tuple[str, ...] = ()


class Registrations:
    """problems: by application, why the last round could not do its part; none where it could."""

    def __init__(self, consul: Consul, equipment: Equipment, queue: DeploymentQueue) -> None:
        self.problems: dict[str, str] = {}
        self.drains = Drains(equipment.state)
        self._consul = consul
        self._equipment = equipment
        self._queue = queue
        self._said: dict[str, float] = {}
        self._pause = _FIRST_PAUSE_SECONDS
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Go on until cancelled: at the start, after every deployment, and every 30 s.

        After a round that failed it is sooner, and each time later again.
        """
        while True:
            try:
                await self.make_round()
            except AgentError as error:  # of state: the queue says it
                logger.warning("cannot look after Consul: %s", error.message)
            except Exception:  # what deploys must not end for it
                logger.exception("looking after Consul failed", extra=_kind(Message.INTERNAL_ERROR))
            await self._rest()

    async def _rest(self) -> None:
        """Until the next round, the end of a deployment or of a drain, or a new drain."""
        pause = self._pause if self.problems else _ROUND_SECONDS
        self._pause = min(2 * pause, _ROUND_SECONDS) if self.problems else _FIRST_PAUSE_SECONDS
        seconds = pause * random.uniform(0.9, 1.1)  # noqa: S311
        ends = await asyncio.to_thread(self.drains.next_end)
        if ends is not None:
            seconds = min(seconds, max(ends - time.time(), 0.0) + 0.01)
        waits = {
            asyncio.ensure_future(self._queue.wait_for_end(seconds)),
            asyncio.ensure_future(self._drained.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._drained.clear()

    async def make_round(self) -> None:
        """Look after every application; raises AgentError where state cannot be read."""
        problems: dict[str, str] = {}
        for application in await asyncio.to_thread(self._equipment.state.applications):
            try:
                await self.settle(application)
            except AgentError as error:
                problems[application] = error.line
        self.problems = problems
        self._say()

    async def settle(self, application: str) -> None:
        """Make what Consul knows of one application as it should be.

        Does nothing while a deployment of it is under way. Raises AgentError.
        """
        current, wanted = await self._wanted(application)
        if await self._is_busy(application):
            return
        here = await self._consul.services_here()
        if current is None:
            await self._clear(application, here)
            return
        for service, entry in wanted.services:
            await self._register(application, service, entry, here)
        kept = {*(service.id for service, _ in wanted.services), *wanted.ids}
        for found in here.values():
            if found.id not in kept and registration.is_of(application, found):
                await self._consul.deregister(found.id)
                logger.info("%s: deregistered, as no revision here has it", found.id)
        await self._maintain(application, wanted)

    async def _clear(self, application: str, here: dict[str, ServiceHealth]) -> None:
        """Deregister what the undo of a first revision could not; only what is known of here."""
        known = await asyncio.to_thread(self._equipment.state.deployments, application)
        ids = {each.id for each in known}
        for found in here.values():
            is_left = found.meta.get(registration.DEPLOYMENT) in ids
            if is_left and registration.is_of(application, found):
                await self._consul.deregister(found.id)
                logger.info("%s: deregistered, as its revision was undone", found.id)

    async def _register(
        self,
        application: str,
        service: ConsulService,
        entry: ServiceRegistration,
        here: dict[str, ServiceHealth],
    ) -> None:
        if registration.find_stranger(application, service, here.values()) is not None:
            return
        found = here.get(service.id) or await self._consul.service_here(service.id)
        is_there = found is not None and registration.is_registered(entry, found)
        if not is_there or not await self._consul.has_registered(service.id):
            await self._consul.register(entry)
            logger.info("%s: registered in Consul", service.id)

    async def _maintain(self, application: str, wanted: Wanted) -> None:
        """Out of traffic while a person wants that; else what the agent began is ended."""
        drain = await asyncio.to_thread(self.drains.of, application)
        newest = (await asyncio.to_thread(self._equipment.state.deployments, application, 1))[:1]
        is_broken = any(each.outcome is Outcome.INCONSISTENT for each in newest)
        for found in (await self.find(application, wanted)).values():
            if await self._is_busy(application):
                return
            if drain is not None and await self._is_to_begin(found):
                reason = registration.drain_reason(drain.by, drain.reason)
                await self._consul.set_maintenance(found.id, reason)
            elif drain is None and not is_broken and registration.is_ours(found.maintenance):
                await self._consul.set_maintenance(found.id, None)
                logger.info("%s: takes traffic again", found.id)

    async def _is_to_begin(self, found: ServiceHealth) -> bool:
        """Also where it was begun with a token that may be gone: see the adapter."""
        reason = found.maintenance
        is_ours = registration.is_ours(reason) and not registration.is_deployments(reason)
        return reason is None or (is_ours and not await self._consul.has_maintained(found.id))

    async def _is_busy(self, application: str) -> bool:
        """Whether a deployment of it is under way, or left for the queue to go on with."""
        unfinished = await asyncio.to_thread(self._equipment.state.unfinished)
        return any(
            each.revision.application == application and each.step is not None
            for each in unfinished
        )

    async def _wanted(self, application: str) -> tuple[Current | None, Wanted]:
        return await asyncio.to_thread(self._read_wanted, application)

    def _read_wanted(self, application: str) -> tuple[Current | None, Wanted]:
        current = self._equipment.state.current(application)
        if current is None:
            return None, Wanted()
        settings = self._equipment.settings
        tree = Layout(settings.state_dir).release(current.release, current.revision).tree
        appspec, _ = appspec_format.load_appspec(tree)
        named = [each.consul for each in appspec.services if each.consul is not None]
        services = tuple(
            (each, registration.registration(each, current.revision, current.deployment_id))
            for each in named
        )
        folder = "" if settings.consul is None else settings.consul.services_dir
        files = definitions.find_installed(self._equipment.installed.of(application), folder)
        return current, Wanted(services, definitions.read_ids(files))

    # people

    async def drain(self, drain: Drain) -> str:
        """Keep an application out of traffic from now on; why that is not so yet, or ""."""
        current, wanted = await self._wanted(drain.application)
        if current is None or not (wanted.services or wanted.ids):
            raise NotFound(
                f"cannot drain {drain.application}: it has no service in Consul",
                code=Code.NOT_FOUND,
                remedy="Name one in its appspec: services: [{consul: {name: …}}]",
            )
        await asyncio.to_thread(self.drains.save, drain)
        self._drained.set()
        return await self._settle_now(drain.application)

    async def undrain(self, application: str) -> str:
        """Let it in again; why that is not so yet, or ""."""
        await asyncio.to_thread(self.drains.end, application)
        return await self._settle_now(application)

    async def _settle_now(self, application: str) -> str:
        try:
            await self.settle(application)
        except AgentError as error:
            self.problems[application] = error.line
            return error.line
        if await self._is_busy(application):
            return "a deployment of it is under way, and minds it at its end"
        return ""

    # telling

    async def wanted(self, application: str) -> Wanted:
        """What ought to be in Consul of an application; raises AgentError."""
        _, wanted = await self._wanted(application)
        return wanted

    async def find(self, application: str, wanted: Wanted) -> dict[str, ServiceHealth]:
        """What is registered of it, by whomever, by id; raises AgentError."""
        services = [service for service, _ in wanted.services]
        return await lookup.find(self._consul, application, services, wanted.ids)

    def _say(self) -> None:
        """Log a problem when it is new, and once an hour while it stays."""
        now, found = time.monotonic(), set(self.problems.values())
        if self._said and not found:
            logger.info(
                "Consul knows all services of this host", extra=_kind(Message.CONSUL_RECOVERED)
            )
        self._said = {each: since for each, since in self._said.items() if each in found}
        for problem in sorted(found):
            if now - self._said.get(problem, -_SAY_AGAIN_SECONDS) >= _SAY_AGAIN_SECONDS:
                self._said[problem] = now
                logger.warning("%s", problem, extra=_kind(Message.CONSUL_PROBLEM))


def _kind(message: Message) -> dict[str, dict[str, str]]:
    return {"fields": {"MESSAGE_ID": message}}
