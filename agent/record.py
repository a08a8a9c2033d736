"""What is known of one deployment on its way, and saving it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agent.model.deployment import Deployment, Failure, Status, Step, StepName
from agent.model.errors import AgentError
from agent.store.state import State
from agent.system.deployment_log import DeploymentLog

logger = logging.getLogger(__name__)


class Record:
    """A deployment and its steps in memory; what changed is saved in one transaction.

    `deployment`, `steps` and `progress` (step, done, total) may be read at any time.
    """

    def __init__(
        self,
        state: State,
        deployment: Deployment,
        *,
        log: DeploymentLog,
        on_change: Callable[[], None],
    ) -> None:
        self.deployment = deployment
        self.steps = {step.name: step for step in state.steps(deployment.id)}
        self.progress: tuple[StepName, int, int] | None = None
        self.log = log
        self._state = state
        self._on_change = on_change
        self._unsaved: set[StepName] = set()
        self._said: deque[str] = deque(maxlen=5)

    def change(self, **changes: object) -> None:
        """Change fields of the deployment."""
        self.deployment = dataclasses.replace(self.deployment, **changes)  # type: ignore[arg-type]

    def step(self, name: StepName, **changes: object) -> None:
        """Change fields of a step; the first change begins it."""
        known = self.steps.get(name) or Step(name=name, status=Status.DOING, started_at=0.0)
        self.steps[name] = dataclasses.replace(known, **changes)  # type: ignore[arg-type]
        self._unsaved.add(name)

    def begin(self, name: StepName) -> None:
        """Begin a step: its name is to be saved before it works."""
        self.step(name, status=Status.DOING, started_at=time.time())
        self.change(step=name)

    async def save(self) -> None:
        """Save what changed; raises AgentError."""
        steps = [self.steps[name] for name in self._unsaved]
        await asyncio.to_thread(self._state.save, self.deployment, steps)
        self._unsaved.clear()
        self._on_change()

    async def save_quietly(self) -> None:
        """Undo and report go on even when the disk is full; the next save carries it all."""
        try:
            await self.save()
        except AgentError as error:
            logger.error("cannot save %s: %s; going on", self.deployment.id, error.message)

    async def commit(self, plan: Path, **changes: object) -> None:
        """Make the revision current, with `changes`, in one transaction; all or nothing."""
        before, begun = self.deployment, time.monotonic()
        self.change(**changes)
        self.step(StepName.COMMIT, status=Status.DONE, started_at=time.time())
        steps = [self.steps[name] for name in self._unsaved]
        try:
            await asyncio.to_thread(self._state.commit, self.deployment, steps, plan)
        except AgentError:
            self.deployment = before
            del self.steps[StepName.COMMIT]
            self._unsaved.discard(StepName.COMMIT)
            raise
        self._unsaved.clear()
        self.step(StepName.COMMIT, seconds=time.monotonic() - begun)
        self._on_change()

    def fail(self, error: AgentError, place: StepName) -> None:
        """Set why the deployment failed."""
        self.change(failure=self.failure(error, place))
        self.say(f"{place} failed: {error.message}", *error.details)

    def fail_step(self, error: AgentError, name: StepName, doing: str) -> None:
        """Set why a step failed, when that is not why the deployment did."""
        self.step(name, status=Status.FAILED, failure=self.failure(error, name))
        self.say(f"{doing} failed: {error.message}", *error.details)

    def failure(self, error: AgentError, place: StepName) -> Failure:
        """An error as the record that explains itself: cause, place, evidence, next."""
        return Failure(
            code=error.code,
            where=error.where or f"step {place}",
            message=error.message,
            evidence=error.details or tuple(self._said),
            next=error.remedy or f"Read the whole log: agentctl logs {self.deployment.id}",
        )

    def say(self, text: str, *more: str) -> None:
        """Tell the deployment's log and the agent's."""
        logger.info("%s: %s", self.deployment.id, text)
        for line in (text, *(f"  {each}" for each in more if each)):
            self.log.line(line)
            self._said.append(line)
