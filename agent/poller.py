"""desired ≠ current → deployment: one decision per source and round, said in one sentence."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Protocol

from agent.model.deployment import Deployment, Outcome, Revision, Trigger
from agent.model.errors import AgentError, Code, TransientError
from agent.model.messages import Message
from agent.queue import DeploymentQueue
from agent.store.state import State

logger = logging.getLogger(__name__)

# what may be different a little later without anybody doing anything here
TRANSIENT = frozenset(
    {
        Code.BUNDLE_MISSING,
        Code.BUNDLE_CHANGED,
        Code.CONSUL_UNREACHABLE,
        Code.DISK_FULL,
        Code.SOURCE_UNAVAILABLE,
    }
)
_FIRST_RETRY_SECONDS = 5.0
_LAST_RETRY_SECONDS = 600.0
_SAY_AGAIN_SECONDS = 3600.0
_CURRENT = "is current, as desired"


class Source(Protocol):
    """Where desired revisions come from.

    poll_seconds, longest_pause_seconds: between two questions, and after many that failed.
    """

    poll_seconds: float
    longest_pause_seconds: float

    async def desired(self) -> list[Revision]:
        """The desired revision of each application. Raises AgentError."""

    async def report(self, deployment: Deployment) -> None:
        """Tell the source how a deployment ended."""

    async def close(self) -> None:
        """Let go of threads and connections."""


class Poller:
    """Polls one source. `decision` and `problem` are what status shows of it.

    asking_since: when the question that is not answered yet was asked (monotonic); None between
    two questions.
    """

    def __init__(self, source: Source, state: State, queue: DeploymentQueue) -> None:
        self.source = source
        self.decision = "not asked yet"
        self.problem = ""
        self.asking_since: float | None = None
        self._state = state
        self._queue = queue
        self._failures = 0
        self._retry_after = 0.0
        self._is_problem_said = False
        self._said: dict[str, float] = {}
        self._settled: tuple[list[Revision], int] | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                await self.poll_once()
                await self._queue.wait_for_end(self.pause())
        finally:
            await self.source.close()

    def pause(self) -> float:
        """Seconds until the source is asked again.

        Jitter: many agents on one store must not ask in step. After failures the pause doubles, is
        spread wider, and is no shorter than the store asked for: a store that comes back must not
        be met by all of them at once.
        """
        source = self.source
        if not self._failures:
            return source.poll_seconds * random.uniform(0.9, 1.1)  # noqa: S311
        doubled = source.poll_seconds * 2.0 ** min(self._failures, 16)
        longest = min(doubled, source.longest_pause_seconds)
        return max(longest, self._retry_after) * random.uniform(1.0, 1.5)  # noqa: S311

    async def poll_once(self) -> str:
        """Ask the source once and act on it; one sentence that says what was decided and why."""
        self.asking_since = time.monotonic()
        try:
            desired = await self.source.desired()
            changes = self._queue.changes
            if self._settled != (desired, changes) or self.problem:
                sentences = [await self._decide(revision) for revision in desired]
                self.problem = ""
                self.decision = "; ".join(sentences) or f"{self.source}: nothing desired"
                is_settled = all(each.endswith(_CURRENT) for each in sentences)
                self._settled = (desired, changes) if is_settled else None
            self._failures = 0
        except AgentError as error:
            # what a store refuses or lacks is not there sooner for asking less often
            if isinstance(error, TransientError):
                self._failures, self._retry_after = self._failures + 1, error.retry_after
            else:
                self._failures, self._retry_after = 0, 0.0
            self.problem = error.line
            self.decision = f"{self.source}: {error.message}"
        except Exception as error:
            self._failures += 1
            logger.exception("polling %s failed", self.source, extra=_kind(Message.INTERNAL_ERROR))
            self.problem = f"internal error {type(error).__name__}: {error}"
            self.decision = f"{self.source}: {self.problem}"
        finally:
            self.asking_since = None
        if self._is_problem_said and not self.problem:
            self._is_problem_said = False
            logger.info("%s answers again", self.source, extra=_kind(Message.SOURCE_RECOVERED))
        self._say(self.decision)
        return self.decision

    async def _decide(self, desired: Revision) -> str:
        name = f"{desired.application} {desired.version}"
        state = self._state
        current, newest, same, highest = await asyncio.to_thread(
            lambda: (
                state.current(desired.application),
                # a changed environment is no attempt to bring the revision here
                next(filter(_is_of_revision, state.deployments(desired.application)), None),
                [
                    each
                    for each in state.attempts(desired.application, desired.identity)
                    if _is_of_revision(each)
                ],
                state.highest_serial(desired.application),
            )
        )
        if newest is not None and _is_served(desired, newest):
            return f"{name} {_CURRENT}"
        if same and same[0].outcome is None:
            return f"{name} is being deployed"
        if same and same[0].outcome is Outcome.SUCCEEDED and same[0] == newest:
            return f"{name} {_CURRENT}"
        if same:
            wait = _wait_seconds(same)
            if current is not None and current.revision.identity == desired.identity:
                return f"{name} {_CURRENT}"  # what was asked for since did not stay
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
        """Log a sentence when it is new, and once an hour while it stays.

        A store that was away once is no news: it is asked again.
        """
        if self._failures == 1:
            return
        now = time.monotonic()
        last = self._said.get(sentence)
        if last is not None and now - last <= _SAY_AGAIN_SECONDS:
            return
        self._said = {sentence: now}
        if self.problem:
            self._is_problem_said = True
            logger.warning("%s: %s", self.source, self.problem, extra=_kind(Message.SOURCE_PROBLEM))
        else:
            logger.info("%s", sentence)
        self._queue.notify()


def _is_of_revision(deployment: Deployment) -> bool:
    """Whether it counts here. What ended inconsistent needs a person, whoever asked for it."""
    is_change = deployment.trigger is Trigger.ENVIRONMENT
    return not is_change or deployment.outcome is Outcome.INCONSISTENT


def _is_served(desired: Revision, newest: Deployment) -> bool:
    """Whether it is what was deployed last, only published anew (a later expiry, another serial).

    Nothing is restarted for that.
    """
    served = newest.revision
    is_same = desired.digest == served.digest != "" and desired.version == served.version
    return is_same and newest.outcome is Outcome.SUCCEEDED


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
