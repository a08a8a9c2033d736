"""What is known of one deployment on its way, and saving it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from agent.model import messages
from agent.model.deployment import Deployment, Failure, Outcome, Status, Step, StepName
from agent.model.errors import AgentError
from agent.model.messages import Message
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
        self.log.fields.update(messages.deployment_fields(deployment))
        self._state = state
        self._on_change = on_change
        self._unsaved: set[StepName] = set()
        self._said: deque[str] = deque(maxlen=5)

    def change(self, **changes: object) -> None:
        """Change fields of the deployment."""
        self.deployment = dataclasses.replace(self.deployment, **changes)  # type: ignore[arg-type]
        self.log.fields.update(messages.deployment_fields(self.deployment))

    def step(self, name: StepName, **changes: object) -> None:
        """Change fields of a step; the first change begins it."""
        known = self.steps.get(name) or Step(name=name, status=Status.DOING, started_at=0.0)
        self.steps[name] = dataclasses.replace(known, **changes)  # type: ignore[arg-type]
        self._unsaved.add(name)

    def begin(self, name: StepName) -> None:
        """Begin a step: its name is to be saved before it works."""
        self.step(name, status=Status.DOING, started_at=time.time())
        self._enter(name)
        self.log.line(f"{name} begins", MESSAGE_ID=Message.STEP_BEGUN)

    def begin_undo(self, name: StepName) -> None:
        """Begin the undo of a step."""
        self.step(name, status=Status.UNDOING)
        self._enter(name)
        self.log.line(f"undo of {name} begins", MESSAGE_ID=Message.UNDO_BEGUN)

    def end_step(self, name: StepName, seconds: float, note: str) -> None:
        """A step is done."""
        self.step(name, status=Status.DONE, seconds=seconds, note=note)
        told = f"{name}: done in {seconds:.2f} s"
        self.say(f"{told}: {note}" if note else told, message=Message.STEP_DONE)

    def end_undo(self, name: StepName, seconds: float) -> None:
        """The undo of a step is done."""
        self.step(name, status=Status.UNDONE)
        self.say(f"undo of {name}: done in {seconds:.2f} s", message=Message.UNDO_DONE)

    def end(self, outcome: Outcome) -> None:
        """The deployment ended without a commit."""
        self.change(outcome=outcome)
        cause = self.deployment.failure.message if self.deployment.failure else ""
        message = messages.BY_OUTCOME[outcome]
        self.say(f"ended: {outcome}", cause, message=message, level=logging.ERROR)

    def _enter(self, name: StepName) -> None:
        self.change(step=name)
        self.log.fields["STEP"] = name

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
            logger.error(
                "%s: %s; going on, as an undo must",
                self.deployment.id,
                error.message,
                extra={"fields": {**self.log.fields, "MESSAGE_ID": Message.STATE_PROBLEM}},
            )

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
        failure = self.failure(error, place)
        self.change(failure=failure)
        self._say_failure(f"{place} failed", error, failure, messages.of_failure(failure.code))

    def fail_step(self, error: AgentError, name: StepName, *, is_undo: bool = False) -> None:
        """Set why a step failed, when that is not why the deployment did."""
        failure = self.failure(error, name)
        self.step(name, status=Status.FAILED, failure=failure)
        if is_undo:
            self._say_failure(f"undo of {name} failed", error, failure, Message.UNDO_FAILED)
        else:
            self._say_failure(f"{name} failed", error, failure, messages.of_failure(failure.code))

    def _say_failure(
        self, what: str, error: AgentError, failure: Failure, message: Message
    ) -> None:
        """One entry that explains itself, to whoever reads nothing but the journal."""
        self.say(
            f"{what}: {failure.message}",
            *error.details,  # other evidence was said just before
            f"next: {failure.next}",
            message=message,
            level=logging.ERROR,
            **messages.failure_fields(failure),
        )

    def failure(self, error: AgentError, place: StepName) -> Failure:
        """An error as the record that explains itself: cause, place, evidence, next."""
        return Failure(
            code=error.code,
            where=error.where or f"step {place}",
            message=error.message,
            evidence=error.details or tuple(self._said),
            next=error.remedy or f"Read the whole log: agentctl logs {self.deployment.id}",
        )

    def say(
        self,
        text: str,
        *more: str,
        message: Message | None = None,
        level: int = logging.INFO,
        **fields: str,
    ) -> None:
        """Tell the deployment's log and the agent's; `fields` are for the journal."""
        if message is not None:
            fields["MESSAGE_ID"] = message
        lines = (text, *(f"  {each}" for each in more if each))
        self.log.line("\n".join(lines), level=level, **fields)
        self._said.extend(lines)
