"""Slots: how many hosts of a deployment group may change their configuration at once.

A slot is a lock in Consul, below slots/APPLICATION/GROUP/, one key for each. Its value names the
deployment that it was taken for, so that an agent that is started again goes on with it. What
Consul does not allow, or does not answer for long, is done without one: a host must not depend on
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.consul import locks
from agent.consul.locks import Lock
from agent.equipment import Equipment
from agent.model.consul import KvEntry
from agent.model.deployment import Deployment, Revision, Status, Trigger
from agent.model.errors import AgentError, Conflict, NotFound, TransientError
from agent.model.messages import Message
from agent.queue import DeploymentQueue

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

logger = logging.getLogger(__name__)

TTL_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 1.0
MOST_WAIT_SECONDS = 6 * 3600.0
_MOST_HELD_SECONDS = 3600.0  # by a deployment that does not end
AWAY_SECONDS = 60.0  # an election must not let a whole group go at once
_SHOWN_HOLDERS = 3
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a change may begin. said: why not, or without which slot; "" where it has one."""

    is_free: bool
    said: str = ""
    lock: Lock | None = None


class Slots:
    """Takes slots for the changes of this host, and gives them back when those have ended."""

    def __init__(self, consul: Consul, equipment: Equipment, queue: DeploymentQueue) -> None:
        self._consul = consul
        self._equipment = equipment
        self._queue = queue
        self._waits: dict[str, float] = {}  # since when, by application (monotonic)
        self._away: dict[str, float] = {}  # since when Consul does not answer it
        self._keepers: set[asyncio.Task[None]] = set()

    async def ask(self, revision: Revision, count: int, deployment_id: str) -> Answer:
        """Try to take one of `count` slots for a deployment that is about to be asked for.

        To be asked again after LOOK_AGAIN_SECONDS, until it is free or `forget` is called.
        """
        application, now = revision.application, time.monotonic()
        since = self._waits.setdefault(application, now)
        try:
            lock, held = await self._take(revision, count, deployment_id)
            self._away.pop(application, None)
        except TransientError as error:
            if now - self._away.setdefault(application, now) < AWAY_SECONDS:
                return Answer(is_free=False, said=f"waits for a slot: {error.message}")
            return self._without(application, error.message)
        except AgentError as error:
            return self._without(application, f"{error.message}. {error.remedy}")
        if lock is not None:
            self.forget(application)
            return Answer(is_free=True, lock=lock)
        if now - since > MOST_WAIT_SECONDS:
            return self._without(application, f"none was free for {MOST_WAIT_SECONDS / 3600:g} h")
        return Answer(is_free=False, said=f"waits for one of {count} slots, which {_named(held)}")

    def forget(self, application: str) -> None:
        """It does not wait any more."""
        self._waits.pop(application, None)
        self._away.pop(application, None)

    def _without(self, application: str, why: str) -> Answer:
        self.forget(application)
        said = f"without a slot: {why}"
        fields = {"MESSAGE_ID": Message.CONSUL_PROBLEM, "APPLICATION": application}
        logger.warning("%s changes %s", application, said, extra={"fields": fields})
        return Answer(is_free=True, said=said)

    async def _take(
        self, revision: Revision, count: int, deployment_id: str
    ) -> tuple[Lock | None, list[KvEntry]]:
        """The slot, and who has the others; raises AgentError."""
        folder = self._folder(revision)
        names = [f"{folder}/{number}" for number in range(1, count + 1)]
        entries = await self._consul.read_entries(folder)
        held = [each for each in entries if each.session and each.key in names]
        free = [each for each in names if each not in {entry.key for entry in held}]
        if not free:
            return None, held
        random.shuffle(free)  # others ask as well
        value = {"schema": _SCHEMA, "host": os.uname().nodename, "deployment": deployment_id}
        lock = await locks.take(
            self._consul,
            free,
            json.dumps(value).encode(),
            name=f"{revision.application} slot",
            ttl_seconds=TTL_SECONDS,
        )
        return lock, held

    def _folder(self, revision: Revision) -> str:
        return self._consul.key("slots", revision.application, revision.group or "-")

    # while the deployment goes on

    async def give_back(self, lock: Lock) -> None:
        """It is not needed: nothing was asked for."""
        await locks.release(self._consul, lock)

    def keep(self, deployment: Deployment, lock: Lock | None) -> None:
        """Hold it until the deployment has ended. lock None: of an agent before this one."""
        keeper = asyncio.create_task(self._keep_safely(deployment, lock))
        self._keepers.add(keeper)
        keeper.add_done_callback(self._keepers.discard)

    async def take_over(self) -> None:
        """Go on with what an agent before this one held."""
        for each in await asyncio.to_thread(self._equipment.state.unfinished):
            if each.trigger is Trigger.ENVIRONMENT:
                self.keep(each, None)

    def close(self) -> None:
        """Hold nothing any more; the next agent may take it over, for as long as the TTL lasts."""
        for each in self._keepers:
            each.cancel()

    async def _keep_safely(self, deployment: Deployment, lock: Lock | None) -> None:
        try:
            await self._keep(deployment, lock)
        except AgentError as error:  # of state: the queue says it
            logger.warning("cannot keep the slot of %s: %s", deployment.id, error.message)

    async def _keep(self, deployment: Deployment, lock: Lock | None) -> None:
        ends = time.monotonic() + _MOST_HELD_SECONDS
        while time.monotonic() < ends and await self._is_unfinished(deployment):
            try:
                if lock is None:
                    lock = await self._find(deployment)
                if lock is None:
                    return
                await self._consul.renew_session(lock.session)
            except NotFound:
                await self._lose(deployment)
                return
            except AgentError:
                pass  # Consul is away: it may come back within the TTL
            await self._queue.wait_for_end(TTL_SECONDS / 4)
        if lock is not None:
            await locks.release(self._consul, lock)

    async def _is_unfinished(self, deployment: Deployment) -> bool:
        found = await asyncio.to_thread(self._equipment.state.deployment, deployment.id)
        return found.status not in (Status.DONE, Status.FAILED)

    async def _find(self, deployment: Deployment) -> Lock | None:
        """The slot that was taken for it; raises AgentError."""
        for each in await self._consul.read_entries(self._folder(deployment.revision)):
            if each.session and locks.parse(each).get("deployment") == deployment.id:
                return Lock(each.key, each.session)
        return None

    async def _lose(self, deployment: Deployment) -> None:
        """Another host may have it: what has not begun waits for one again."""
        fields = {
            "MESSAGE_ID": Message.CONSUL_PROBLEM,
            "APPLICATION": deployment.revision.application,
        }
        logger.warning(
            "%s has lost its slot: this host or Consul was away for too long",
            deployment.id,
            extra={"fields": {**fields, "DEPLOYMENT_ID": deployment.id}},
        )
        running = self._queue.running
        if running is None or running.deployment.id != deployment.id:
            with contextlib.suppress(Conflict):  # it has ended
                await self._queue.abort(deployment.id, by="the loss of its slot", now=False)


def _named(held: Iterable[KvEntry]) -> str:
    """Such as "web-1 (d-7K3M9QX2P) has"."""
    names = []
    for each in held:
        whose = locks.parse(each)
        names.append(f"{whose.get('host', '?')} ({whose.get('deployment', '?')})")
    if not names:
        return "others have just taken, or hosts that are away are about to lose"
    shown = ", ".join(names[:_SHOWN_HOLDERS]) + (", …" if len(names) > _SHOWN_HOLDERS else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"
