"""The deployments of this host, one at a time: asked for, waiting, running, ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from pathlib import Path

from agent import recovery, runner
from agent.equipment import Equipment
from agent.hooks.record import Past
from agent.model import messages
from agent.model.deployment import (
    Current,
    Deployment,
    Outcome,
    Revision,
    Status,
    Trigger,
    new_deployment_id,
)
from agent.model.errors import AgentError, Code, Conflict, NotFound, from_os_error
from agent.model.messages import Message
from agent.model.release import Layout
from agent.record import Record
from agent.store.state import State
from agent.system import durable, memory
from agent.system.deployment_log import DeploymentLog

logger = logging.getLogger(__name__)

_BEGIN_AGAIN_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 5.0  # a hold expires by itself
_ABORT = "abort"  # in the deployment's folder


class DeploymentQueue:
    """Takes requests, keeps them in state, and runs them in order.

    changes: how often something of it has changed; while it stays, so does what is decided.
    """

    def __init__(self, equipment: Equipment) -> None:
        self.changes = 0
        self.running: runner.Run | None = None
        self._equipment = equipment
        self._layout = Layout(equipment.settings.state_dir)
        self._work = asyncio.Event()
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._requested: set[str] = set()  # and not ended
        # what waits is begun, or ended before it began: never both
        self._beginning = asyncio.Lock()
        self._stopping = False

    # asked for by poller and API

    async def request(
        self,
        revision: Revision,
        trigger: Trigger,
        *,
        by: str,
        release: str = "",
        deployment_id: str = "",
    ) -> Deployment:
        """Add a deployment; a waiting one of the same application is superseded by it.

        deployment_id: a new one, where it is known before. Raises Conflict while a hold is in force
        (rollbacks pass).
        """
        if trigger is not Trigger.ROLLBACK:
            await refuse_held(self._equipment.state, revision)
        deployment_id = deployment_id or new_deployment_id()
        deployment = Deployment(
            id=deployment_id,
            revision=revision,
            release=release or deployment_id,
            trigger=trigger,
            requested_by=by,
            status=Status.PENDING,
            created_at=time.time(),
        )
        async with self._beginning:
            superseded = await asyncio.to_thread(self._equipment.state.request, deployment)
        for replaced in superseded:
            logger.info(
                "%s: superseded by %s",
                replaced,
                deployment_id,
                extra=_fields(deployment, Message.DEPLOYMENT_SUPERSEDED, DEPLOYMENT_ID=replaced),
            )
        logger.info(
            "%s: %s %s asked for by %s",
            deployment_id,
            revision.application,
            revision.version,
            by,
            extra=_fields(deployment, Message.DEPLOYMENT_REQUESTED),
        )
        self._requested.difference_update(superseded)
        self._requested.add(deployment_id)
        self.look_again()
        return deployment

    async def rollback(self, application: str, version: str | None, *, by: str) -> Deployment:
        """Deploy the previous revision, or `version`, from what lies on this host."""
        state, layout = self._equipment.state, self._layout
        target = await asyncio.to_thread(_find_release, state, layout, application, version)
        return await self.request(target.revision, Trigger.ROLLBACK, by=by, release=target.release)

    async def retry(self, application: str, *, by: str) -> Deployment:
        """Deploy the newest failed revision again, and lift its quarantine."""
        known = await asyncio.to_thread(self._equipment.state.deployments, application, 1)
        if not known or known[0].outcome in (None, Outcome.SUCCEEDED):
            raise Conflict(
                f"cannot retry {application}: its newest deployment has not failed",
                code=Code.CONFLICT,
                remedy="See: agentctl history",
            )
        failed = known[0]
        is_here = failed.trigger in (Trigger.ROLLBACK, Trigger.ENVIRONMENT)
        deployment = await self.request(
            failed.revision,
            Trigger.ENVIRONMENT if failed.trigger is Trigger.ENVIRONMENT else Trigger.RETRY,
            by=by,
            release=failed.release if is_here else "",
        )
        await asyncio.to_thread(self._equipment.state.lift, application, failed.revision.digest)
        return deployment

    async def abort(self, deployment_id: str, *, by: str, now: bool) -> None:
        """End a waiting deployment, or tell the running one to stop and undo. Raises Conflict."""
        async with self._beginning:
            await self._abort(deployment_id, by=by, now=now)
        self.notify()

    async def _abort(self, deployment_id: str, *, by: str, now: bool) -> None:
        if self.running is not None and self.running.deployment.id == deployment_id:
            reason = f"aborted by {by}"
            self.running.abort(reason, now=now)
            await asyncio.to_thread(_note_abort, self._layout.work_dir(deployment_id), reason)
            return
        deployment = await asyncio.to_thread(self._equipment.state.deployment, deployment_id)
        if deployment.status is not Status.PENDING:
            is_over = deployment.outcome is not None
            cause = f"it has ended ({deployment.outcome})" if is_over else "the agent just starts"
            raise Conflict(
                f"cannot abort {deployment_id}: {cause}",
                code=Code.CONFLICT,
                remedy="See: agentctl history" if is_over else "Try again in a moment",
            )
        ended = dataclasses.replace(
            deployment, status=Status.DONE, outcome=Outcome.ABORTED, ended_at=time.time()
        )
        await asyncio.to_thread(self._equipment.state.save, ended)
        self._requested.discard(deployment_id)
        logger.info(
            "%s: aborted by %s before it began",
            deployment_id,
            by,
            extra=_fields(deployment, Message.ABORTED),
        )

    async def abort_requested(self, *, by: str) -> None:
        """Abort what was asked for since the agent began; what recovery goes on with may end."""
        unfinished = await asyncio.to_thread(self._equipment.state.unfinished)
        for deployment in reversed(unfinished):
            if deployment.id in self._requested:
                with contextlib.suppress(Conflict):
                    await self.abort(deployment.id, by=by, now=True)

    # the work

    async def run(self) -> None:
        """Run deployments until stop(); first the one that had not ended."""
        while not self._stopping:
            self._work.clear()
            unfinished = await asyncio.to_thread(self._equipment.state.unfinished)
            chosen = await _choose(self._equipment.state, unfinished)
            if chosen is None:
                await _wait(self._work, _LOOK_AGAIN_SECONDS if unfinished else None)
                continue
            try:
                await self._run_one(chosen.id)
                self._requested.discard(chosen.id)
            except runner.StopRequested:
                await self._part()
                return
            except asyncio.CancelledError:
                await self._part()
                raise
            except AgentError as error:
                # it could not even be begun, as state cannot be written: tried again, as status
                # should go on telling of it
                logger.error(
                    "%s: %s; %s",
                    chosen.id,
                    error.message,
                    error.remedy,
                    extra=_fields(chosen, Message.STATE_PROBLEM),
                )
                await _wait(self._work, _BEGIN_AGAIN_SECONDS)
            finally:
                self.running = None
                self._ended.set()
                self._ended = asyncio.Event()
                self.notify()

    async def is_idle(self) -> bool:
        """Whether nothing is worked on, and nothing that waits may begin."""
        unfinished = await asyncio.to_thread(self._equipment.state.unfinished)
        return await _choose(self._equipment.state, unfinished) is None

    async def _run_one(self, deployment_id: str) -> None:
        async with self._beginning:
            deployment = await asyncio.to_thread(self._equipment.state.deployment, deployment_id)
            if deployment.status in (Status.DONE, Status.FAILED):
                return  # ended by somebody since it was chosen
            self.running, entry = await self._prepare(deployment)
            if self._stopping:
                self.running.stop()
            await self.running.begin(entry)
        await self.running.run(entry)
        await asyncio.to_thread(memory.give_back)

    async def _prepare(self, deployment: Deployment) -> tuple[runner.Run, recovery.Entry]:
        work_dir = self._layout.work_dir(deployment.id)
        try:
            await asyncio.to_thread(work_dir.mkdir, mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, f"make {work_dir}", code=Code.STATE_DAMAGED) from error
        record = await asyncio.to_thread(
            Record,
            self._equipment.state,
            deployment,
            log=DeploymentLog(work_dir / "log"),
            on_change=self.notify,
        )
        steps = list(record.steps.values())
        abort_reason = await asyncio.to_thread(_read_abort, work_dir)
        past = Past() if abort_reason else await self._equipment.hooks.look_back(deployment.id)
        entry = recovery.choose_entry(deployment, steps, self._equipment.rows_of(deployment), past)
        return runner.Run(self._equipment, record, abort_reason=abort_reason), entry

    async def _part(self) -> None:
        """The agent is asked to end: the next one of this boot goes on where this one was."""
        if self.running is None:
            return
        deployment = self.running.deployment
        await self._equipment.hooks.part(deployment.id, self.running.pass_name)
        logger.info(
            "%s: left for the next start of the agent", deployment.id, extra=_fields(deployment)
        )

    def stop(self) -> None:
        """Stop after the row that runs; the next start of the agent goes on from there."""
        self._stopping = True
        self._work.set()
        if self.running is not None:
            self.running.stop()

    # watching

    def look_again(self) -> None:
        """There may be work now: something was asked for, or a hold has ended."""
        self._work.set()
        self.notify()

    def notify(self) -> None:
        """Wake those who watch: something is different now."""
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, seconds: float) -> None:
        """Return at the next change, at the latest after `seconds`."""
        await _wait(self._changed, seconds)

    async def wait_for_end(self, seconds: float) -> None:
        """Return when a deployment ends, at the latest after `seconds`."""
        await _wait(self._ended, seconds)


async def refuse_held(state: State, revision: Revision) -> None:
    """Raise Conflict while a hold is in force."""
    hold = await asyncio.to_thread(state.hold)
    if hold is not None:
        raise Conflict(
            f"cannot deploy {revision.version}: deployments are held by {hold.by}: {hold.reason}",
            code=Code.HELD,
            remedy="Wait for the hold to expire, or run: agentctl unhold",
        )


def _find_release(state: State, layout: Layout, application: str, version: str | None) -> Current:
    """What a rollback brings back: the previous revision, or `version`. Raises NotFound."""
    if version is None:
        previous = state.previous(application)
        if previous is None:
            raise NotFound(
                f"cannot roll back {application}: there is no previous revision on this host",
                code=Code.NOT_FOUND,
                remedy="Deploy the revision you want: agentctl deploy BUNDLE",
            )
        return previous
    current, here = state.current(application), []
    for each in state.deployments(application, limit=100_000):
        if each.outcome is not Outcome.SUCCEEDED or current is None:
            continue
        if not (layout.releases / each.release).is_dir():
            continue
        if each.revision.version == version and each.release != current.release:
            return Current(each.revision, each.release, each.id, each.ended_at)
        here.append(each.revision.version)
    raise NotFound(
        f"cannot roll back {application} to {version}: it is not on this host",
        code=Code.NOT_FOUND,
        details=(f"on this host: {', '.join(dict.fromkeys(here)) or 'nothing'}",),
        remedy="Name one of these, or deploy its bundle: agentctl deploy BUNDLE",
    )


async def _choose(state: State, unfinished: list[Deployment]) -> Deployment | None:
    """What was begun; else what waits, in a hold a rollback only."""
    first = next(iter(unfinished), None)
    if first is None or first.status is not Status.PENDING:
        return first
    if await asyncio.to_thread(state.hold) is None:
        return first
    return next((each for each in unfinished if each.trigger is Trigger.ROLLBACK), None)


def _fields(
    deployment: Deployment, message: Message | None = None, **more: str
) -> dict[str, dict[str, str]]:
    """The `extra` of a log call about a deployment that has no log of its own at hand."""
    named = {**messages.deployment_fields(deployment), **more}
    if message is not None:
        named["MESSAGE_ID"] = message
    return {"fields": named}


def _note_abort(work_dir: Path, reason: str) -> None:
    """So that an agent that is restarted meanwhile, or a host, does not go on with it."""
    try:
        durable.write_atomically(work_dir / _ABORT, reason.encode())
    except OSError as error:
        logger.warning("cannot save the abort in %s: %s", work_dir, error.strerror)


def _read_abort(work_dir: Path) -> str:
    """Why the deployment was aborted, "" if it was not."""
    try:
        return (work_dir / _ABORT).read_text("utf-8", "replace")
    except OSError:
        return ""


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
