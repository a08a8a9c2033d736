"""One deployment through the lifecycle table: forward and commit, or back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent.equipment import Equipment
from agent.lifecycle import Row
from agent.model.deployment import Deployment, Outcome, Status, StepName, Trigger
from agent.model.errors import AgentError, Code, Conflict
from agent.model.messages import Message
from agent.model.release import Layout
from agent.record import Record
from agent.recovery import Direction, Entry
from agent.rowwork import RowWork
from agent.steps.context import Context, Result
from agent.store.state import Quarantined, State


class StopRequested(Exception):
    """The agent stops between two rows; recovery goes on from what is saved."""


class Run:
    """One deployment on its way through the table."""

    def __init__(self, equipment: Equipment, record: Record, *, abort_reason: str = "") -> None:
        """abort_reason: why it was aborted before this start of the agent, "" if it was not."""
        self.record = record
        self._equipment = equipment
        self._rows = equipment.rows_of(record.deployment)
        self._work = RowWork(equipment, record)
        if abort_reason:
            self._work.abort(abort_reason, now=False)
        self._layout = Layout(equipment.settings.state_dir)
        self._work_dir = self._layout.work_dir(record.deployment.id)
        self._stopping = False
        self._forward = True
        self._is_first = True

    @property
    def deployment(self) -> Deployment:
        """The deployment as it stands."""
        return self.record.deployment

    # asked from outside

    @property
    def abort_reason(self) -> str:
        """Why it was aborted, "" when it was not."""
        return self._work.abort_reason

    @property
    def pass_name(self) -> str:
        """The row that runs and the way through it, as hooks are recorded."""
        return self._work.pass_name

    def abort(self, reason: str, *, now: bool) -> None:
        """Stop at the next safe point and undo; `now`: end what runs, too. Raises Conflict."""
        if not self._forward or self.deployment.outcome is not None:
            doing = "undone already" if self.deployment.outcome is None else "past its commit"
            raise Conflict(
                f"cannot abort {self.deployment.id}: it is {doing}",
                code=Code.CONFLICT,
                remedy="See agentctl status; after a commit: agentctl rollback",
            )
        self._work.abort(reason, now=now)

    def stop(self) -> None:
        """Stop before the next row, for the agent's own shutdown."""
        self._stopping = True

    # the way through the table

    async def begin(self, entry: Entry) -> None:
        """Save that it is worked on, so that it waits no more. Raises AgentError."""
        self._is_first = self.deployment.starts == 0
        application = self.deployment.revision.application
        current = await asyncio.to_thread(self._equipment.state.current, application)
        self.record.change(
            starts=self.deployment.starts + (1 if entry.counts else 0),
            status=Status.UNDOING if entry.direction is Direction.BACKWARD else Status.DOING,
            started_at=self.deployment.started_at or time.time(),
            previous_version=current.revision.version if current else "",
        )
        await self.record.save()

    async def run(self, entry: Entry) -> Deployment:
        """Bring what was begun to its end, from `entry`; raises StopRequested on shutdown."""
        await self._enter(entry)
        if entry.direction is not Direction.AFTERWARDS:
            failed_at = entry.index
            if entry.direction is Direction.FORWARD:
                failed_at = await self._go_forward(entry.index)
            elif self.deployment.failure is None:
                self._fail_by_stop()
            if self.deployment.outcome is None:
                await self._go_backward(failed_at)
        await self._finish(entry.index if entry.direction is Direction.AFTERWARDS else 0)
        return self.deployment

    async def _enter(self, entry: Entry) -> None:
        if not self._is_first:
            starts = self.deployment.starts
            begun = f"start {starts} of this deployment" if entry.counts else "the agent is back"
            self.record.say(
                f"{begun}: {entry.why}",
                message=Message.DEPLOYMENT_RESUMED,
                level=logging.WARNING,
            )
            await self._take_over(goes_on=entry.goes_on)
        else:
            await self._equipment.hooks.tidy()
            self.record.say(_beginning(self.deployment), message=Message.DEPLOYMENT_BEGUN)

    async def _take_over(self, *, goes_on: bool) -> None:
        hooks = self._equipment.hooks
        for ended in await hooks.take_over(self.deployment.id, goes_on=goes_on):
            self.record.say(f"ended what the interrupted hook left running: {ended}")

    def _fail_by_stop(self) -> None:
        step = self.deployment.step or StepName.FETCH
        error = AgentError(
            f"cannot finish {step}: the agent was stopped in it (killed, or power was lost)",
            code=Code.AGENT_STOPPED,
            remedy="Find out why (journalctl -u deploy-agent), then run: agentctl retry",
        )
        try:
            self._work.check_abort()
        except AgentError as abort:
            error = abort
        self.record.fail(error, step)

    async def _go_forward(self, index: int) -> int:
        """Do the rows from `index` on, and commit; the index of the row that failed."""
        limit = self._equipment.settings.starts
        if self.deployment.starts > limit:
            self.record.fail(
                AgentError(
                    f"cannot deploy {self.deployment.revision.version}: work on it was begun"
                    f" {self.deployment.starts} times, and the limit is {limit}",
                    code=Code.TOO_MANY_STARTS,
                    remedy="Find out what stops the agent: journalctl -u deploy-agent",
                ),
                self.deployment.step or StepName.FETCH,
            )
            await self._take_over(goes_on=False)
            return min(index, len(self._rows) - 1)
        for number in range(index, len(self._rows)):
            if not await self._do(self._rows[number]):
                return number
        last = len(self._rows) - 1
        try:
            self._work.check_abort()
            await self._commit()
        except AgentError as error:
            self.record.fail(error, StepName.COMMIT)
        return last

    async def _do(self, row: Row) -> bool:
        """Do one row; False when it failed (or must not begin)."""
        if self._stopping:
            raise StopRequested
        begun = time.monotonic()
        try:
            self._work.check_abort()
            self.record.begin(row.name)
            await self.record.save()
            result = await self._work.run(row, row.do) or Result()
        except AgentError as error:
            self.record.fail(error, row.name)
            if row.name in self.record.steps:
                self.record.step(
                    row.name,
                    status=Status.FAILED,
                    seconds=time.monotonic() - begun,
                    failure=self.deployment.failure,
                )
            return False
        if result.revision is not None:
            self.record.change(revision=result.revision)
        self.record.end_step(row.name, time.monotonic() - begun, result.note)
        return await self._save_done(row)

    async def _save_done(self, row: Row) -> bool:
        try:
            await self.record.save()
        except AgentError as error:
            self.record.fail(error, row.name)
            return False
        return True

    async def _commit(self) -> None:
        await self.record.commit(
            self._work_dir / "plan.db", step=StepName.COMMIT, outcome=Outcome.SUCCEEDED
        )
        self._forward = False
        version = self.deployment.revision.version
        self.record.say(
            f"committed: {version} is current",
            message=Message.COMMITTED,
            STEP=StepName.COMMIT,
        )

    async def _go_backward(self, index: int) -> None:
        """Undo the rows from `index` down to the first; a failing undo stops no other."""
        self._forward = False
        self._work.is_undo = True
        self.record.change(status=Status.UNDOING)
        rows = self._rows[: index + 1]
        begun = [row for row in rows if row.name in self.record.steps]
        if self.deployment.starts > 2 * self._equipment.settings.starts:
            self.record.say("the undo was begun too often: left as it is", level=logging.ERROR)
            begun = []
        for row in reversed(begun):
            if self._stopping:
                raise StopRequested
            if row.undo is not None:
                await self._undo(row, row.undo)
        outcome = self._outcome_of_undo()
        self.record.end(outcome)
        if outcome in (Outcome.ROLLED_BACK, Outcome.INCONSISTENT):
            await _quarantine(self._equipment.state, self.record)
        await self.record.save_quietly()

    def _outcome_of_undo(self) -> Outcome:
        """From what is recorded of the steps: some of them may be an earlier start's."""
        begun = [row for row in self._rows if row.name in self.record.steps]
        for row in begun:
            if row.undo and self.record.steps[row.name].status is not Status.UNDONE:
                return Outcome.INCONSISTENT
        if self._work.abort_reason:
            return Outcome.ABORTED
        touched = any(row.touches for row in begun)
        return Outcome.ROLLED_BACK if touched else Outcome.FAILED

    async def _undo(self, row: Row, undo: Callable[[Context], Awaitable[None]]) -> None:
        begun = time.monotonic()
        self.record.begin_undo(row.name)
        await self.record.save_quietly()

        async def work(ctx: Context) -> None:
            await undo(ctx)

        try:
            await self._work.run(row, work)
        except AgentError as error:
            self.record.fail_step(error, row.name, is_undo=True)
        else:
            self.record.end_undo(row.name, time.monotonic() - begun)
        self.record.step(row.name, undo_seconds=time.monotonic() - begun)
        await self.record.save_quietly()

    async def _finish(self, index: int) -> None:
        """Report and prune. What fails here is recorded, and changes no outcome."""
        self.record.change(status=Status.DOING, ended_at=self.deployment.ended_at or time.time())
        for row in self._equipment.afterwards[index:]:
            if self._stopping:
                raise StopRequested
            begun = time.monotonic()
            self.record.begin(row.name)
            await self.record.save_quietly()
            try:
                result = await self._work.run(row, row.do) or Result()
                self.record.end_step(row.name, time.monotonic() - begun, result.note)
            except AgentError as error:
                self.record.fail_step(error, row.name)
                self.record.step(row.name, seconds=time.monotonic() - begun)
        succeeded = self.deployment.outcome is Outcome.SUCCEEDED
        self.record.change(status=Status.DONE if succeeded else Status.FAILED)
        await self.record.save_quietly()


def _beginning(deployment: Deployment) -> str:
    """What is begun, in words."""
    revision, by = deployment.revision, deployment.requested_by
    name = f"{revision.application} {revision.version}"
    if deployment.trigger is Trigger.ENVIRONMENT:
        return f"changing the environment of {name}, asked for by {by}"
    return f"deploying {name} from {revision.bundle}, asked for by {by}"


async def _quarantine(state: State, record: Record) -> None:
    """Refuse the revision on this host from now on, unless it is the one that serves."""
    deployment = record.deployment
    revision = deployment.revision
    current = await asyncio.to_thread(state.current, revision.application)
    if current is not None and current.revision.digest == revision.digest:
        return  # only this attempt to bring it here again failed
    entry = Quarantined(
        application=revision.application,
        digest=revision.digest,
        version=revision.version,
        since=time.time(),
        cause=deployment.failure.message if deployment.failure else "it was undone",
        deployment_id=deployment.id,
    )
    try:
        await asyncio.to_thread(state.quarantine, entry)
    except AgentError as error:
        record.say(
            f"cannot save the quarantine of {entry.version}: {error.message}",
            message=Message.STATE_PROBLEM,
            level=logging.ERROR,
        )
    else:
        record.say(
            f"{entry.version} is quarantined: it is not deployed here again by itself",
            message=Message.QUARANTINED,
            level=logging.WARNING,
        )
