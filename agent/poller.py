"""desired ≠ current → deployment: one decision per source and round, said in one sentence."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from agent.model.deployment import Deployment, Outcome, Revision, Trigger
from agent.model.errors import AgentError, Code
from agent.model.messages import Message
from agent.queue import DeploymentQueue
from agent.store.state import State

logger = logging.getLogger(__name__)

# what may be different a little later without anybody doing anything here
TRANSIENT = frozenset(
    {Code.BUNDLE_MISSING, Code.BUNDLE_CHANGED, Code.DISK_FULL, Code.SOURCE_UNAVAILABLE}
)
_FIRST_RETRY_SECONDS = 5.0
_LAST_RETRY_SECONDS = 600.0
_SAY_AGAIN_SECONDS = 3600.0
_CURRENT = "is current, as desired"


class Source(Protocol):
    """Where desired revisions come from."""

    def desired(self) -> list[Revision]:
        """The desired revision of each application; blocks. Raises AgentError."""

    async def report(self, deployment: Deployment) -> None:
        """Tell the source how a deployment ended."""


class Poller:
    """Polls one source. `decision` and `problem` are what status shows of it.

    asking_since: when the question that is not answered yet was asked (monotonic); None between
    two questions.
    """

    def __init__(
        self, source: Source, state: State, queue: DeploymentQueue, *, seconds: float
    ) -> None:
        self.source = source
        self.decision = "not asked yet"
        self.problem = ""
        self.asking_since: float | None = None
        self._state = state
        self._queue = queue
        self._seconds = seconds
        self._said: dict[str, float] = {}
        self._settled: tuple[list[Revision], int] | None = None
        # a source that hangs takes this thread, and none of those that deployments need
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="source")

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                await self.poll_once()
                # jitter: many agents on one store must not ask in step
                pause = self._seconds * random.uniform(0.9, 1.1)  # noqa: S311
                await self._queue.wait_for_end(pause)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def poll_once(self) -> str:
        """Ask the source once and act on it; one sentence that says what was decided and why."""
        problem_before, self.asking_since = self.problem, time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            desired = await loop.run_in_executor(self._thread, self.source.desired)
            changes = self._queue.changes
            if self._settled != (desired, changes) or self.problem:
                sentences = [await self._decide(revision) for revision in desired]
                self.problem = ""
                self.decision = "; ".join(sentences) or f"{self.source}: nothing desired"
                is_settled = all(each.endswith(_CURRENT) for each in sentences)
                self._settled = (desired, changes) if is_settled else None
        except AgentError as error:
            self.problem = f"{error.message}. {error.remedy}"
            self.decision = f"{self.source}: {error.message}"
        except Exception as error:
            logger.exception("polling %s failed", self.source, extra=_kind(Message.INTERNAL_ERROR))
            self.problem = f"internal error {type(error).__name__}: {error}"
            self.decision = f"{self.source}: {self.problem}"
        finally:
            self.asking_since = None
        if problem_before and not self.problem:
            logger.info("%s answers again", self.source, extra=_kind(Message.SOURCE_RECOVERED))
        self._say(self.decision)
        return self.decision

    async def _decide(self, desired: Revision) -> str:
        name = f"{desired.application} {desired.version}"
        state = self._state
        newest, same, highest = await asyncio.to_thread(
            lambda: (
                next(iter(state.deployments(desired.application, 1)), None),
                state.attempts(desired.application, desired.identity),
                state.highest_serial(desired.application),
            )
        )
        if same and same[0].outcome is None:
            return f"{name} is being deployed"
        if same and same[0].outcome is Outcome.SUCCEEDED and same[0] == newest:
            return f"{name} {_CURRENT}"
        if same:
            wait = _wait_seconds(same)
            if same[0] != newest or wait is None:
                return f"{name} is not tried again by itself: {same[0].id} ended {same[0].outcome}"
            if wait > 0:
                return f"{name} is tried again after {same[0].id} could not get it"
        elif desired.serial and desired.serial <= highest:
            return f"{name} is older than what was desired before: left alone"
        if newest is not None and newest.outcome is Outcome.INCONSISTENT:
            return f"{name} waits: {newest.id} ended inconsistent and needs a person"
        hold = await asyncio.to_thread(self._state.hold)
        if hold is not None:
            return f"{name} waits: deployments are held by {hold.by}: {hold.reason}"
        deployment = await self._queue.request(desired, Trigger.SOURCE, by=f"source {self.source}")
        return f"{name} is desired: {deployment.id}"

    def _say(self, sentence: str) -> None:
        """Log a sentence when it is new, and once an hour while it stays."""
        now = time.monotonic()
        last = self._said.get(sentence)
        if last is not None and now - last <= _SAY_AGAIN_SECONDS:
            return
        self._said = {sentence: now}
        if self.problem:
            logger.warning("%s: %s", self.source, self.problem, extra=_kind(Message.SOURCE_PROBLEM))
        else:
            logger.info("%s", sentence)
        self._queue.notify()


def _kind(message: Message) -> dict[str, dict[str, str]]:
    return {"fields": {"MESSAGE_ID": message}}


def _wait_seconds(attempts: list[Deployment]) -> float | None:
    """How long until a revision that could not be had is tried again; None for never."""
    last = attempts[0]
    if last.outcome is not Outcome.FAILED or last.failure is None:
        return None
    if last.failure.code not in TRANSIENT:
        return None
    wait = min(_FIRST_RETRY_SECONDS * 2.0 ** (len(attempts) - 1), _LAST_RETRY_SECONDS)
    return last.ended_at + wait - time.time()
