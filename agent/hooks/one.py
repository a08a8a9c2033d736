"""One hook from its first try to its end, with all that is recorded of it on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.hooks import failure, record
from agent.hooks.backend import HookBackend, HookEnd, HookMark
from agent.hooks.failure import Attempt
from agent.hooks.record import HookRecord, HookRun
from agent.hooks.scene import HookScene
from agent.model.errors import AgentError
from agent.model.settings import HookSettings, Leftover
from agent.system import processes
from agent.system.cancel import Cancel
from agent.system.deployment_log import HookOutput
from agent.system.processes import Process
from agent.system.threads import run_blocking

logger = logging.getLogger(__name__)

_NAMED_PROCESSES = 10


class Departure:
    """The agent's way out. is_leaving: hooks that outlive it go on without it.

    is_idle: only hooks are waited for. was_cut: a hook failed or was ended, and must not be begun
    again as if nothing had happened.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.is_idle = asyncio.Event()
        self.was_cut = False

    async def wait_if_leaving(self) -> None:
        """Begin nothing that the next agent would have to adopt at once."""
        if self.is_leaving:
            self.is_idle.set()
            await asyncio.Event().wait()  # for the cancellation that this asks for


@dataclass(frozen=True, slots=True)
class Means:
    """What all hooks are run with. work_dir: of the deployment."""

    settings: HookSettings
    backend: HookBackend
    departure: Departure
    work_dir: Path


class OneHook:
    """A hook of a lifecycle event."""

    def __init__(self, means: Means, scene: HookScene, attempt: Attempt) -> None:
        self._means = means
        self._scene = scene
        self._attempt = attempt
        self._log = scene.log
        self._has_ended = False  # the run that is under way

    async def run(self) -> None:
        """Run it to its end, or go on with it; raises AgentError if it does not succeed."""
        adopted = await self._find_adopted()
        attempt = self._attempt
        self._say(
            f"{'goes on' if adopted else 'begins'} as {attempt.account.name}:"
            f" {shlex.join(attempt.command.argv)}"
        )
        output = self._log.hook(
            attempt.hook.event,
            attempt.hook.location,
            limit_bytes=self._means.settings.log_bytes,
            kept_bytes=adopted.kept if adopted else 0,
        )
        try:
            end = await self._try_in_time(output, adopted)
        except asyncio.CancelledError:
            if self._means.departure.is_leaving and not self._has_ended:
                self._say("goes on while the agent is away")
                raise
            await asyncio.to_thread(output.close)
            if not self._has_ended:
                self._say("stopped, and all its processes ended")
            raise
        except AgentError as error:
            await asyncio.to_thread(output.close)
            error.where = error.where or attempt.where
            raise
        self._means.departure.was_cut = not end.is_success
        await asyncio.to_thread(output.close)
        attempt = self._attempt
        self._say(f"{end.completed} after {attempt.seconds:.2f} s")
        if not end.is_success:
            raise await asyncio.to_thread(failure.explain, attempt, end, output, self._scene)

    def _say(self, text: str) -> None:
        event = self._attempt.hook.event
        self._log.line(f"{self._attempt.where}: {text}", LIFECYCLE_EVENT=event)

    async def _find_adopted(self) -> HookRun | None:
        """The run of this hook that an agent before this one began, if its end can be had."""
        known = await asyncio.to_thread(record.load, self._means.work_dir)
        run, hook = known.running, self._attempt.hook
        if run is None:
            return None
        mark = make_mark(self._scene.deployment_id, known, run)
        if not run.is_run_of(hook.event, self._attempt.ordinal, hook.location):
            await self._means.backend.stop(mark)
            return None
        return run if await self._means.backend.is_there(mark) else None

    async def _try_in_time(self, output: HookOutput, adopted: HookRun | None) -> HookEnd:
        """Run it, again while it asks for that, all within its timeout."""
        began, first = time.monotonic(), processes.now_ticks()
        run = adopted
        if adopted is not None:
            first = adopted.began
            began -= processes.seconds_since(first)
            self._attempt = dataclasses.replace(self._attempt, tries=adopted.tries)
        deadline = began + self._attempt.hook.timeout_seconds
        pause = self._means.settings.retry_seconds
        while True:
            run = run or self._new_run(first)
            end = await self._try(output, run, timeout_seconds=deadline - time.monotonic())
            run = None
            now = time.monotonic()
            tries = self._attempt.tries + 1
            self._attempt = dataclasses.replace(self._attempt, tries=tries, seconds=now - began)
            if not end.asks_for_retry or now + pause >= deadline:
                return end
            self._say(f"{end.completed}: tried again in {pause:g} s")
            await asyncio.sleep(pause)
            await self._means.departure.wait_if_leaving()
            self._scene.cancel.check()

    def _new_run(self, began: int) -> HookRun:
        """The next run; it has its number when it is recorded."""
        hook = self._attempt.hook
        return HookRun(
            number=0,
            event=hook.event,
            location=hook.location,
            since=processes.now_ticks(),
            ordinal=self._attempt.ordinal,
            began=began,
            tries=self._attempt.tries,
            outlives=self._means.backend.outlives,
        )

    async def _try(self, output: HookOutput, run: HookRun, *, timeout_seconds: float) -> HookEnd:
        """One run, a new one or one to adopt. Its end is saved before anything of it goes."""
        backend = self._means.backend
        known = await asyncio.to_thread(record.load, self._means.work_dir)
        watch = Watch(self._means, known, output)
        self._has_ended = False
        is_new = run.number == 0
        if is_new:
            run = await asyncio.to_thread(watch.begin, run)
        mark = make_mark(self._scene.deployment_id, watch.known, run, self._journal_fields())
        try:
            if is_new:
                command = self._attempt.command
                end = await backend.run(mark, command, timeout_seconds=timeout_seconds, watch=watch)
            else:
                end = await backend.adopt(mark, watch=watch)
            self._means.departure.was_cut = not (end.is_success or end.asks_for_retry)
            self._has_ended = True
            await run_blocking(Cancel(), watch.end, end)
            await self._let_go(mark, end, watch)
        except asyncio.CancelledError:
            if not self._means.departure.is_leaving:
                await self._cut(watch)
            raise
        except AgentError:
            await backend.stop(mark)
            await self._cut(watch)
            raise
        return end

    async def _cut(self, watch: Watch) -> None:
        self._means.departure.was_cut = True
        await asyncio.to_thread(watch.end, None)

    async def _let_go(self, mark: HookMark, end: HookEnd, watch: Watch) -> None:
        """Name what a successful hook left, and end it if so configured."""
        if not end.is_success or not (end.left_over or end.readers):
            await self._means.backend.forget(mark, end)
            return
        must_end = self._means.settings.leftover is Leftover.KILL
        if end.left_over:
            names = await asyncio.to_thread(_describe, end.left_over)
            self._say(f"{names}{' (killed)' if must_end else ''}")
        if must_end:
            identities = tuple(process.identity for process in end.left_over)
            await self._means.backend.stop(dataclasses.replace(mark, known=identities))
            await asyncio.to_thread(watch.without_left_over)

    def _journal_fields(self) -> dict[str, str]:
        """What every line of the hook can be found by, such as journalctl DEPLOYMENT_ID=d-1."""
        scene, hook = self._scene, self._attempt.hook
        return {
            "DEPLOYMENT_ID": scene.deployment_id,
            "APPLICATION": scene.application,
            "REVISION_VERSION": scene.version,
            "LIFECYCLE_EVENT": hook.event,
            "STEP": scene.pass_name.removeprefix("undo "),
            "HOOK": hook.location,
        }


class Watch:
    """What is saved while a hook runs (a HookWatch)."""

    def __init__(self, means: Means, known: HookRecord, output: HookOutput) -> None:
        self.known = known
        self.output = output
        self._means = means

    @property
    def is_leaving(self) -> bool:
        """See HookWatch."""
        return self._means.departure.is_leaving

    def begin(self, run: HookRun) -> HookRun:
        """A run is about to begin; the run with its number."""
        self._save(self.known.begin(run))
        assert self.known.running is not None
        return self.known.running

    def begun(self, main: Process) -> None:
        """See HookWatch."""
        self._save(self.known.with_running(processes=(main.identity,)))

    def heard(self, cursor: str) -> None:
        """See HookWatch."""
        self._save(self.known.with_running(cursor=cursor, kept=self.output.kept_bytes))

    def end(self, end: HookEnd | None) -> None:
        """How it ended; None when it was ended."""
        if end is None or not end.is_success:
            self._save(self.known.end(()))
        else:
            left_over = tuple(each.identity for each in (*end.left_over, *end.readers))
            self._save(self.known.end(left_over, succeeded=True))

    def without_left_over(self) -> None:
        """What the last run left has been ended."""
        self._save(self.known.without(self.known.number))

    def _save(self, known: HookRecord) -> None:
        self.known = known
        save(self._means.work_dir, known)


def make_mark(
    deployment_id: str, known: HookRecord, run: HookRun, fields: Mapping[str, str] | None = None
) -> HookMark:
    """What a backend finds a run by."""
    return HookMark(
        name=f"hook-{deployment_id}-{run.number}",
        environment={"DEPLOYMENT_ID": deployment_id, "LIFECYCLE_EVENT": run.event},
        since=run.since,
        known=run.processes,
        others=tuple(
            identity
            for other in known.left
            if other.number != run.number
            for identity in other.processes
        ),
        fields=fields or {},
        cursor=run.cursor,
    )


def save(work_dir: Path, known: HookRecord) -> None:
    """A full disk must not keep hooks from running, least of all those of an undo."""
    try:
        record.save(work_dir, known)
    except OSError as error:
        logger.warning("cannot save which hook runs, in %s: %s", work_dir, error.strerror)


def _describe(left_over: Sequence[Process]) -> str:
    """Such as "2 processes left over: 1234 sleep 1000, 1235 app"."""
    names = [processes.describe(process) for process in left_over[:_NAMED_PROCESSES]]
    if len(left_over) > len(names):
        names.append("…")
    noun = "process" if len(left_over) == 1 else "processes"
    return f"{len(left_over)} {noun} left over: {', '.join(names)}"
