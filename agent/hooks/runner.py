"""Run the hooks of a lifecycle event, one after the other, and account for their processes."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shlex
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from agent.hooks import failure, record, runas, script
from agent.hooks.backend import HookBackend, HookEnd, HookMark
from agent.hooks.cgroup import CgroupBackend, find_parent
from agent.hooks.environment import make_environment
from agent.hooks.failure import Attempt
from agent.hooks.group import GroupBackend
from agent.hooks.record import HookRecord, HookRun
from agent.hooks.scene import HookScene
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError, Code
from agent.model.release import Layout
from agent.model.settings import HookSettings, Leftover
from agent.system import processes
from agent.system.deployment_log import HookOutput
from agent.system.process import Command
from agent.system.processes import Identity, Process

logger = logging.getLogger(__name__)

_NAMED_PROCESSES = 10


def choose_backend(settings: HookSettings) -> HookBackend:
    """The surest way to run hooks that this host allows; blocks."""
    parent = find_parent()
    if parent is None:
        return GroupBackend(grace_seconds=settings.grace_seconds)
    return CgroupBackend(parent, grace_seconds=settings.grace_seconds)


class HookRunner:
    """Built once, by the daemon. commands_dir: the commands for scripts, last on their PATH."""

    def __init__(
        self, layout: Layout, settings: HookSettings, backend: HookBackend, commands_dir: Path
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._backend = backend
        self._commands_dir = commands_dir
        self._running: asyncio.Task[None] | None = None
        self._stop_reason = ""

    async def run_event(
        self, event: LifecycleEvent, hooks: Sequence[Hook], scene: HookScene
    ) -> None:
        """Run the event's hooks in order; the first that fails ends it.

        Raises AgentError: HOOK_FAILED, HOOK_TIMEOUT, HOOK_NOT_RUNNABLE, NOT_PERMITTED, NOT_FOUND
        (its user), ABORTED (stop_running); Interrupted when `scene.cancel` is set between two
        hooks. When the caller is cancelled, the running hook is ended before this returns.
        """
        for hook in hooks:
            scene.cancel.check()
            self._stop_reason = ""
            self._running = asyncio.create_task(self._run_hook(event, hook, scene))
            try:
                await self._running
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if not self._stop_reason or (caller is not None and caller.cancelling()):
                    raise
                raise AgentError(
                    f"cannot go on with {hook.location}: {self._stop_reason}",
                    code=Code.ABORTED,
                    where=f"{event} {hook.location}",
                ) from None
            finally:
                self._running = None

    def stop_running(self, reason: str) -> bool:
        """End the running hook (TERM, grace, KILL), so that run_event raises ABORTED.

        To be called on the event loop; returns at once. False: none is running.
        """
        if self._running is None or self._running.done():
            return False
        self._stop_reason = reason
        return self._running.cancel()

    async def clear(self, deployment_id: str) -> list[str]:
        """End what is left of the hook that ran when the agent was killed: each "pid command".

        What completed hooks left on purpose goes on.
        """
        work_dir = self._layout.work_dir(deployment_id)
        known = await asyncio.to_thread(record.load, work_dir)
        if known.running is None:
            return []
        ended = await self._backend.stop(_mark(deployment_id, known, known.running))
        await asyncio.to_thread(_save, work_dir, known.end(()))
        return ended

    async def kill_left_over(
        self, deployment_id: str, events: Collection[LifecycleEvent]
    ) -> list[str]:
        """End what completed hooks of `events` left running: each "pid command"."""
        work_dir = self._layout.work_dir(deployment_id)
        known = await asyncio.to_thread(record.load, work_dir)
        ended: list[str] = []
        for run in known.left:
            if run.event in events:
                ended += await self._backend.stop(_mark(deployment_id, known, run))
                known = known.without(run)
                await asyncio.to_thread(_save, work_dir, known)
        return ended

    async def _run_hook(self, event: LifecycleEvent, hook: Hook, scene: HookScene) -> None:
        attempt = await asyncio.to_thread(self._prepare, event, hook, scene)
        scene.log.line(
            f"{attempt.where}: begins as {attempt.account.name}: {shlex.join(attempt.command.argv)}"
        )
        output = scene.log.hook(event, hook.location, limit_bytes=self._settings.log_bytes)
        try:
            attempt, end = await self._try_in_time(attempt, scene, output)
        except asyncio.CancelledError:
            scene.log.line(f"{attempt.where}: stopped, and all its processes ended")
            raise
        finally:
            await asyncio.to_thread(output.close)
        scene.log.line(f"{attempt.where}: {end.completed} after {attempt.seconds:.2f} s")
        if not end.is_success:
            raise await asyncio.to_thread(failure.explain, attempt, end, output, scene)

    def _prepare(self, event: LifecycleEvent, hook: Hook, scene: HookScene) -> Attempt:
        where = f"{event} {hook.location}"
        try:
            account, must_switch = runas.find_runas(hook)
            found = script.find_script(scene.tree, hook.location)
        except AgentError as error:
            error.where = where
            raise
        command = Command(
            argv=runas.with_sudo(hook, found.argv),
            env=make_environment(scene, event, account, commands_dir=self._commands_dir),
            cwd=str(scene.tree),
            user=account if must_switch else None,
        )
        return Attempt(where, hook, found, command, account)

    async def _try_in_time(
        self, attempt: Attempt, scene: HookScene, output: HookOutput
    ) -> tuple[Attempt, HookEnd]:
        """Run it, again while it asks for that, all within its timeout."""
        began = time.monotonic()
        deadline = began + attempt.hook.timeout_seconds
        pause = self._settings.retry_seconds
        while True:
            left = deadline - time.monotonic()
            end = await self._try(attempt, scene, output, timeout_seconds=left)
            now = time.monotonic()
            attempt = dataclasses.replace(attempt, tries=attempt.tries + 1, seconds=now - began)
            if not end.asks_for_retry or now + pause >= deadline:
                return attempt, end
            scene.log.line(f"{attempt.where}: {end.completed}: tried again in {pause:g} s")
            await asyncio.sleep(pause)
            scene.cancel.check()

    async def _try(
        self, attempt: Attempt, scene: HookScene, output: HookOutput, *, timeout_seconds: float
    ) -> HookEnd:
        work_dir = self._layout.work_dir(scene.deployment_id)
        known = await asyncio.to_thread(record.load, work_dir)
        known, run = known.begin(
            attempt.command.env["LIFECYCLE_EVENT"], attempt.hook.location, processes.now_ticks()
        )
        await asyncio.to_thread(_save, work_dir, known)
        mark = _mark(scene.deployment_id, known, run)
        try:
            end = await self._backend.run(
                mark,
                attempt.command,
                timeout_seconds=timeout_seconds,
                output=output.write,
                begun=lambda main: _save(work_dir, known.with_main(main.identity)),
            )
            left_over = await self._settle_left_over(attempt, scene, mark, end)
        except asyncio.CancelledError:
            await asyncio.to_thread(_save, work_dir, known.end(()))
            raise
        await asyncio.to_thread(_save, work_dir, known.end(left_over))
        return end

    async def _settle_left_over(
        self, attempt: Attempt, scene: HookScene, mark: HookMark, end: HookEnd
    ) -> tuple[Identity, ...]:
        """Name what a successful hook left, and end it if so configured; what goes on."""
        if not end.is_success or not end.left_over:
            return ()
        identities = tuple(process.identity for process in end.left_over)
        names = await asyncio.to_thread(_describe, end.left_over)
        must_end = self._settings.leftover is Leftover.KILL
        scene.log.line(f"{attempt.where}: {names}{' (killed)' if must_end else ''}")
        if not must_end:
            return identities
        await self._backend.stop(dataclasses.replace(mark, known=identities))
        return ()


def _mark(deployment_id: str, known: HookRecord, run: HookRun) -> HookMark:
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
    )


def _save(work_dir: Path, known: HookRecord) -> None:
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
