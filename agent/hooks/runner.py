"""Run the hooks of a lifecycle event, one after the other, and account for their processes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from agent.hooks import one, record, runas, script
from agent.hooks.backend import HookBackend
from agent.hooks.cgroup import CgroupBackend, find_parent
from agent.hooks.environment import make_environment
from agent.hooks.failure import Attempt
from agent.hooks.group import GroupBackend
from agent.hooks.one import Departure, Means, OneHook
from agent.hooks.record import Past
from agent.hooks.scene import HookScene
from agent.hooks.transient import TransientBackend
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError, Code
from agent.model.release import Layout
from agent.model.settings import HookSettings, Sandbox
from agent.system.process import Command
from agent.system.systemd import Systemd

logger = logging.getLogger(__name__)


def choose_backend(settings: HookSettings, systemd: Systemd | None) -> HookBackend:
    """The surest way to run hooks that this host allows; blocks.

    Raises AgentError (CONFIG_INVALID) where it cannot confine hooks as the settings say.
    """
    if systemd is not None:
        return TransientBackend(systemd, settings)
    if settings.sandbox is not Sandbox.NONE:
        raise AgentError(
            f"cannot confine hooks by sandbox {settings.sandbox}: that takes systemd, and root",
            code=Code.CONFIG_INVALID,
            remedy="Set hooks.sandbox to none in agent.yaml, or run the agent as root",
        )
    if settings.memory_max_bytes or settings.processes_max or settings.cpu_weight:
        logger.warning(
            "hooks.memory_max, processes_max and cpu_weight have no effect without systemd and root"
        )
    parent = find_parent()
    if parent is None:
        return GroupBackend(grace_seconds=settings.grace_seconds)
    return CgroupBackend(parent, grace_seconds=settings.grace_seconds)


class HookRunner:
    """Built once, by the daemon.

    commands_dir: the commands for scripts, last on their PATH. socket: where they reach the agent.
    """

    def __init__(
        self,
        layout: Layout,
        settings: HookSettings,
        backend: HookBackend,
        commands_dir: Path,
        socket: Path,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._backend = backend
        self._commands_dir = commands_dir
        self._socket = socket
        self._departure = Departure()
        self._running: asyncio.Task[None] | None = None
        self._stop_reason = ""
        self._pass = ("", "")  # the deployment, and the pass that it is in
        self._completed: Collection[tuple[str, int]] = ()  # in this pass, before this agent

    async def run_event(
        self, event: LifecycleEvent, hooks: Sequence[Hook], scene: HookScene
    ) -> None:
        """Run the event's hooks in order; the first that fails ends it.

        Those that have succeeded in this pass, before the agent was started again, are passed
        over. Raises AgentError: HOOK_FAILED, HOOK_TIMEOUT, HOOK_NOT_RUNNABLE, NOT_PERMITTED,
        NOT_FOUND (its user), ABORTED (stop_running); Interrupted when `scene.cancel` is set between
        two hooks. When the caller is cancelled, the running hook is ended before this returns,
        unless it goes on after leave().
        """
        self._departure.was_cut = False
        await self._enter_pass(scene)
        for ordinal, hook in enumerate(hooks):
            if (event, ordinal) in self._completed:
                scene.log.line(f"{event} {hook.location}: has run already, and is not run again")
                continue
            scene.cancel.check()
            await self._departure.wait_if_leaving()
            self._stop_reason = ""
            self._running = asyncio.create_task(self._run_hook(event, ordinal, hook, scene))
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

    async def has_process(self, deployment_id: str, pid: int) -> bool:
        """Whether a process is one of the hook that runs for a deployment."""
        known = await asyncio.to_thread(record.load, self._layout.work_dir(deployment_id))
        if known.running is None:
            return False
        mark = one.make_mark(deployment_id, known, known.running)
        return await self._backend.has_process(mark, pid)

    async def clear(self, deployment_id: str) -> list[str]:
        """End what is left of the hook that ran when the agent was killed: each "pid command".

        What completed hooks left on purpose goes on.
        """
        work_dir = self._layout.work_dir(deployment_id)
        known = await asyncio.to_thread(record.load, work_dir)
        if known.running is None:
            return []
        ended = await self._backend.stop(one.make_mark(deployment_id, known, known.running))
        await asyncio.to_thread(one.save, work_dir, known.end(()))
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
                ended += await self._backend.stop(one.make_mark(deployment_id, known, run))
                known = known.without(run.number)
                await asyncio.to_thread(one.save, work_dir, known)
        return ended

    async def tidy(self) -> None:
        """Forget hooks of which nothing runs any more that they left on purpose."""
        for deployment_id in await asyncio.to_thread(self._deployments):
            work_dir = self._layout.work_dir(deployment_id)
            known = await asyncio.to_thread(record.load, work_dir)
            for run in (each for each in known.left if each.outlives):
                mark = one.make_mark(deployment_id, known, run)
                with contextlib.suppress(AgentError):  # there will be another time
                    if await self._backend.forget_if_over(mark):
                        known = known.without(run.number)
                        await asyncio.to_thread(one.save, work_dir, known)

    def _deployments(self) -> list[str]:
        try:
            return sorted(os.listdir(self._layout.state_dir / "deployments"))
        except OSError:
            return []

    # the agent ends, and another one takes over

    def leave(self) -> None:
        """The agent ends: hooks that outlive it go on without it, and no more are begun."""
        self._departure.is_leaving = self._backend.outlives
        if self._departure.is_leaving and self._running is not None:
            self._departure.is_idle.set()

    async def wait_until_idle(self) -> None:
        """After leave(): return when the agent has nothing to do but to wait for hooks."""
        await self._departure.is_idle.wait()

    async def part(self, deployment_id: str, pass_name: str) -> None:
        """Note that the agent leaves this pass in an orderly way, so that it can be gone on with.

        Not where a hook was ended in the middle of its work, or failed.
        """
        if not self._departure.was_cut:
            work_dir = self._layout.work_dir(deployment_id)
            known = await asyncio.to_thread(record.load, work_dir)
            parted = dataclasses.replace(known, parted_in=pass_name)
            await asyncio.to_thread(one.save, work_dir, parted)

    async def look_back(self, deployment_id: str) -> Past:
        """How the agent before this one left a deployment."""
        known = await asyncio.to_thread(record.load, self._layout.work_dir(deployment_id))
        was_orderly = known.parted_in != ""
        if known.running is None:
            return Past(known.parted_in, was_orderly=was_orderly)
        # one that has begun, and whose end nobody can tell any more, must not begin again
        mark = one.make_mark(deployment_id, known, known.running)
        is_there = await self._backend.is_there(mark)
        return Past(known.pass_name, was_orderly=was_orderly) if is_there else Past()

    async def take_over(self, deployment_id: str, *, goes_on: bool) -> list[str]:
        """Begin after look_back(). Unless the pass goes on, its hook is ended: as clear() does."""
        work_dir = self._layout.work_dir(deployment_id)
        known = await asyncio.to_thread(record.load, work_dir)
        if known.parted_in:
            await asyncio.to_thread(one.save, work_dir, dataclasses.replace(known, parted_in=""))
        if not goes_on:
            return await self.clear(deployment_id)
        self._pass, self._completed = (deployment_id, known.pass_name), known.completed
        return []

    # one hook

    async def _enter_pass(self, scene: HookScene) -> None:
        """Begin a pass, or go on with it."""
        if self._pass != (scene.deployment_id, scene.pass_name):
            self._pass, self._completed = (scene.deployment_id, scene.pass_name), ()
            work_dir = self._layout.work_dir(scene.deployment_id)
            known = await asyncio.to_thread(record.load, work_dir)
            await asyncio.to_thread(one.save, work_dir, known.enter(scene.pass_name))

    async def _run_hook(
        self, event: LifecycleEvent, ordinal: int, hook: Hook, scene: HookScene
    ) -> None:
        where = f"{event} {hook.location}"
        try:
            account, must_switch = await asyncio.to_thread(runas.find_runas, hook)
            found = await asyncio.to_thread(script.find_script, scene.tree, hook.location)
        except AgentError as error:
            error.where = where
            await self.clear(scene.deployment_id)  # one to adopt may have removed its own script
            raise
        command = Command(
            argv=runas.with_sudo(hook, found.argv),
            env=make_environment(
                scene, hook, account, commands_dir=self._commands_dir, socket=self._socket
            ),
            cwd=str(scene.tree),
            user=account if must_switch else None,
        )
        means = Means(
            self._settings,
            self._backend,
            self._departure,
            self._layout.work_dir(scene.deployment_id),
        )
        attempt = Attempt(where, ordinal, hook, found, command, account)
        await OneHook(means, scene, attempt).run()
