"""A change of the keys that a service's environment comes from → a small deployment.

One watch for each prefix that a current revision names. What is decided is one sentence for each
application; values are in none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent import queue as queue_module
from agent.consul.watch import PrefixWatch
from agent.equipment import Equipment
from agent.model.appspec import EnvironmentFile
from agent.model.consul import KvSnapshot
from agent.model.deployment import Current, Trigger, new_deployment_id
from agent.model.errors import AgentError
from agent.model.messages import Message
from agent.queue import DeploymentQueue
from agent.upkeep import keyscene
from agent.upkeep.keyscene import KeyScenes
from agent.upkeep.slots import LOOK_AGAIN_SECONDS, Answer, Slots

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

logger = logging.getLogger(__name__)

_DEBOUNCE_SECONDS = 0.1  # keys are written one by one


class KeyWatch:
    """Watches while the agent runs. decisions: by application, what status shows."""

    def __init__(self, equipment: Equipment, queue: DeploymentQueue, consul: Consul) -> None:
        self.decisions: dict[str, str] = {}
        self._equipment = equipment
        self._queue = queue
        self._consul = consul
        self._scenes = KeyScenes(equipment)
        self._watches: dict[str, tuple[PrefixWatch, asyncio.Task[None]]] = {}
        self._latest: dict[str, KvSnapshot] = {}
        self._due: dict[str, float] = {}  # when something may be done about it (monotonic)
        self._users: dict[str, set[str]] = {}  # applications by prefix
        self._splays: dict[str, float] = {}  # seconds by prefix
        self._deciding = asyncio.Lock()
        self._slots = Slots(consul, equipment, queue)
        self._asking: dict[str, asyncio.Task[None]] = {}  # for a slot, by application

    async def view(self, application: str) -> dict[str, Any]:
        """What status shows: the files with the names in them, and what was decided last."""
        try:
            scene = await asyncio.to_thread(self._scenes.look, application)
        except AgentError as error:
            return {"decision": error.message, "files": []}
        kept = scene.kept.snapshots if scene is not None else {}
        files = [
            {
                "file": each.path,
                "prefix": each.prefix,
                "index": kept[each.prefix].index if each.prefix in kept else 0,
                "names": sorted(kept[each.prefix].values) if each.prefix in kept else [],
                "on_change": each.on_change,
                "problem": self._problem(each.prefix),
            }
            for each in (scene.files if scene is not None else ())
        ]
        return {"decision": self.decisions.get(application, ""), "files": files}

    def _problem(self, prefix: str) -> str:
        """Why a prefix cannot be read now, "" where it can."""
        found = self._watches.get(prefix)
        return found[0].problem.message if found and found[0].problem else ""

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            await self._slots.take_over()
            while True:
                applications = await asyncio.to_thread(self._equipment.state.committed)
                await self._follow(applications)
                for application in applications:
                    await self._decide_safely(application)
                await self._queue.wait_for_end(keyscene.LOOK_AGAIN_SECONDS)
        finally:
            for following in (
                *(each for _, each in self._watches.values()),
                *self._asking.values(),
            ):
                following.cancel()
            self._slots.close()

    async def _follow(self, applications: Sequence[str]) -> None:
        """Begin the watches that current revisions name, and end the others."""
        users: dict[str, set[str]] = {}
        splays: dict[str, float] = {}
        for application in applications:
            scene = await asyncio.to_thread(self._scenes.look, application)
            for file in scene.files if scene is not None else ():
                users.setdefault(file.prefix, set()).add(application)
                splays[file.prefix] = max(file.splay_seconds, splays.get(file.prefix, 0.0))
        self._users, self._splays = users, splays
        self._drop_dead()
        for prefix in self._watches.keys() - users.keys():
            self._watches.pop(prefix)[1].cancel()
            self._latest.pop(prefix, None)
        for prefix in users.keys() - self._watches.keys():
            watch = self._consul.watch_prefix(prefix)
            self._watches[prefix] = (watch, asyncio.create_task(self._watch(prefix, watch)))

    def _drop_dead(self) -> None:
        """A fault of ours in one watch: it is begun again, and told of."""
        for prefix, (_, following) in list(self._watches.items()):
            if following.done() and not following.cancelled():
                logger.error(
                    "the watch of %s failed",
                    prefix,
                    exc_info=following.exception(),
                    extra=_internal(),
                )
                del self._watches[prefix]

    async def _watch(self, prefix: str, watch: PrefixWatch) -> None:
        waiting: asyncio.Task[None] | None = None
        try:
            async for snapshot in watch:
                self._latest[prefix] = snapshot
                splay = random.uniform(0, self._splays.get(prefix, 0.0))  # noqa: S311
                self._due[prefix] = time.monotonic() + _DEBOUNCE_SECONDS + splay
                if waiting is not None:
                    waiting.cancel()  # it begins anew: keys are still being written
                waiting = asyncio.create_task(self._decide_soon(prefix))
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _decide_soon(self, prefix: str) -> None:
        await asyncio.sleep(self._due[prefix] - time.monotonic())
        applications = tuple(self._users.get(prefix, ()))
        await asyncio.shield(asyncio.gather(*map(self._decide_safely, applications)))

    async def _decide_safely(self, application: str) -> None:
        try:
            async with self._deciding:
                said = await self._decide(application)
        except AgentError as error:
            said = error.message
        if said != self.decisions.get(application, ""):
            self.decisions[application] = said
            if said:
                logger.info("%s: %s", application, said, extra=_fields(application))

    async def _decide(self, application: str) -> str:
        """Ask for a deployment where Consul's values are other ones; a sentence, "" for none."""
        scene = await asyncio.to_thread(self._scenes.look, application)
        if scene is None or scene.is_busy:
            return self.decisions.get(application, "")  # decided when what runs has ended
        if scene.unread is not None:
            cause = scene.unread.failure.message if scene.unread.failure else "it was ended"
            return f"{scene.unread.id} is tried again in a minute: {cause}"
        changed: list[EnvironmentFile] = []
        said = ""
        for file in scene.files:
            snapshot = self._latest.get(file.prefix)
            if snapshot is None:
                continue
            why = scene.why_not(file.prefix, snapshot)
            if why is None and time.monotonic() >= self._due[file.prefix]:
                changed.append(file)
            said = said or why or ""
        if not changed:
            self._slots.forget(application)
            return said
        return await self._ask_for(scene.current, changed)

    async def _ask_for(self, current: Current, changed: Sequence[EnvironmentFile]) -> str:
        """Ask for the deployment of a change, where it may begin; a sentence. Raises Conflict."""
        by = f"Consul {', '.join(each.prefix for each in changed)}"
        deployment_id = new_deployment_id()
        count = min((each.slots for each in changed if each.slots), default=0)
        slot = Answer(is_free=True)
        if count:
            # a host that is held takes no slot from others
            await queue_module.refuse_held(self._equipment.state, current.revision)
            slot = await self._slots.ask(current.revision, count, deployment_id)
        if not slot.is_free:
            self._ask_again(current.revision.application)
            return f"the environment has changed in {by}: {slot.said}"
        try:
            deployment = await self._queue.request(
                current.revision,
                Trigger.ENVIRONMENT,
                by=f"{by}, without a slot" if slot.said else by,
                release=current.release,
                deployment_id=deployment_id,
            )
        except AgentError:
            if slot.lock is not None:
                await self._slots.give_back(slot.lock)
            raise
        if slot.lock is not None:
            self._slots.keep(deployment, slot.lock)
        said = f", {slot.said}" if slot.said else ""
        return f"the environment has changed in {by}: {deployment.id}{said}"

    def _ask_again(self, application: str) -> None:
        """A little later; other changes and deployments go on meanwhile."""

        async def ask() -> None:
            # jitter: all hosts of the group ask
            await asyncio.sleep(LOOK_AGAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            del self._asking[application]
            await asyncio.shield(self._decide_safely(application))

        if application not in self._asking:
            self._asking[application] = asyncio.create_task(ask())


def _internal() -> dict[str, dict[str, str]]:
    return {"fields": {"MESSAGE_ID": str(Message.INTERNAL_ERROR)}}


def _fields(application: str) -> dict[str, dict[str, str]]:
    fields = {"MESSAGE_ID": str(Message.ENVIRONMENT_DECIDED), "APPLICATION": application}
    return {"fields": fields}
