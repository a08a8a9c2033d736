"""Hooks as transient services: children of PID 1, in cgroups of their own, with its time limit.

So a hook needs no living agent. It survives a restart of the agent and is found again by its
unit's name, PID 1 ends it when its time is up, and what it writes goes to the journal, from where
it is copied into the deployment's log. systemd-run(1), systemd.service(5), systemd.exec(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence

from agent.hooks import relay, sandbox
from agent.hooks.backend import KILL_SECONDS, HookEnd, HookMark, HookWatch
from agent.hooks.cgroup import Leaf
from agent.hooks.group import GroupBackend, settled
from agent.model.errors import AgentError, Code
from agent.model.settings import HookSettings
from agent.system import cgroups, journal_reader, processes
from agent.system.deployment_log import plain
from agent.system.journal_export import Entry
from agent.system.journal_reader import Follower
from agent.system.process import Command, Completed
from agent.system.processes import Process
from agent.system.systemd import Systemd, TransientUnit, UnitState

SLICE = "deploy-hooks.slice"

_EVIDENCE_LINES = 20
_QUICK_SECONDS = 0.3
_DRAIN_SECONDS = 2.0
_CLIENT_SECONDS = 30.0
_SILENCE_SECONDS = 60.0
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0
_ENDED = ("active", "failed", "inactive")  # active: it ended well, and RemainAfterExit= keeps it
# systemd.exec(5), "Process Exit Codes": what keeps a service from being executed
_NOT_STARTED = {
    200: "its working directory could not be entered",
    203: "the shell that starts it could not be executed (/bin/bash)",
    217: "its user could not be had",
    226: "its sandbox could not be set up (hooks.sandbox)",
}


class TransientBackend:
    """Runs each hook as deploy-hook-<deployment>-<n>.service."""

    outlives = True

    def __init__(self, systemd: Systemd, settings: HookSettings) -> None:
        self._systemd = systemd
        self._settings = settings
        self._by_marks = GroupBackend(grace_seconds=settings.grace_seconds)

    async def is_there(self, mark: HookMark) -> bool:
        """See HookBackend."""
        return (await self._systemd.state(_unit(mark))).is_known

    async def run(
        self, mark: HookMark, command: Command, *, timeout_seconds: float, watch: HookWatch
    ) -> HookEnd:
        """See HookBackend."""
        unit = TransientUnit(
            name=_unit(mark),
            description=_description(mark),
            argv=relay.wrap(command),
            environment={},
            properties=self._properties(mark, command, timeout_seconds),
        )
        wait_seconds = timeout_seconds + 2 * self._settings.grace_seconds + _CLIENT_SECONDS
        async with self._heard(mark, watch) as follower:
            try:
                await self._systemd.run(unit, wait_seconds=wait_seconds)
            except AgentError as error:
                # it may be the client only that failed, as PID 1 began anew
                if error.code is Code.CONFLICT or not (await self._ask(unit.name)).is_known:
                    raise
            return await self._end_of(await self._wait_for_end(unit.name), follower)

    async def adopt(self, mark: HookMark, *, watch: HookWatch) -> HookEnd:
        """See HookBackend."""
        async with self._heard(mark, watch) as follower:
            end = await self._end_of(await self._wait_for_end(_unit(mark)), follower)
        if not end.is_success:
            with contextlib.suppress(AgentError):
                said = await journal_reader.read_last(_matches(mark), _EVIDENCE_LINES)
                watch.output.recall([entry.message for entry in said])
        return end

    async def forget(self, mark: HookMark, end: HookEnd) -> None:
        """See HookBackend."""
        if not end.is_success:
            await self._systemd.reset_failed(_unit(mark))
            return
        with contextlib.suppress(AgentError):
            await self._systemd.stop(_unit(mark), timeout_seconds=KILL_SECONDS)

    async def forget_if_over(self, mark: HookMark) -> bool:
        """See HookBackend."""
        state = await self._systemd.state(_unit(mark))
        if await asyncio.to_thread(_members, state):
            return False
        if state.is_known:
            await self._stop_unit(state.name)
        return True

    async def has_process(self, mark: HookMark, pid: int) -> bool:
        """See HookBackend."""
        folder = cgroups.unit_folder((await self._systemd.state(_unit(mark))).cgroup)
        return folder is not None and pid in await asyncio.to_thread(cgroups.read_pids, folder)

    async def stop(self, mark: HookMark) -> list[str]:
        """See HookBackend. Also ends what has left the cgroup but can be told by its marks."""
        name = _unit(mark)
        state = await self._systemd.state(name)
        ended = await asyncio.to_thread(_describe_members, state)
        if state.is_known:
            await self._stop_unit(name)
        return ended + await self._by_marks.stop(mark)

    async def _stop_unit(self, name: str) -> None:
        """TERM, grace and KILL are PID 1's; being cancelled cuts the grace short."""
        seconds = 2 * self._settings.grace_seconds + KILL_SECONDS
        try:
            await self._systemd.stop(name, timeout_seconds=seconds)
        except asyncio.CancelledError:
            await self._systemd.kill(name, "SIGKILL")
            with contextlib.suppress(AgentError):
                await self._systemd.stop(name, timeout_seconds=KILL_SECONDS)
            raise
        except AgentError:
            if (await self._systemd.state(name)).is_running:
                raise
        finally:
            await self._systemd.reset_failed(name)

    @contextlib.asynccontextmanager
    async def _heard(self, mark: HookMark, watch: HookWatch) -> AsyncIterator[Follower]:
        """Copy its output into the log; when cancelled, end the hook, or leave it to the next."""

        def take(entries: Sequence[Entry]) -> None:
            lines = [(entry.seconds, entry.message) for entry in entries]
            written = watch.output.write_lines(lines)
            if written:
                watch.heard(entries[written - 1].cursor)

        follower = Follower(_matches(mark), take, after_cursor=mark.cursor)
        follower.start(after_seconds=_QUICK_SECONDS)
        try:
            yield follower
        except asyncio.CancelledError:
            if not watch.is_leaving:
                await self.stop(mark)
                await follower.finish()
            raise
        finally:
            await follower.stop()
            if follower.problem:
                watch.output.note(f"some of it may be missing here: {follower.problem}")

    async def _wait_for_end(self, name: str) -> UnitState:
        """Wait until its main process has ended, and after a failure all others too.

        PID 1 has the time limit. Asked again and again only where there is nothing to wait on.
        """
        pause = _SHORTEST_PAUSE
        while True:
            state = await self._ask(name)
            if state.active in _ENDED and not (state.active == "inactive" and state.is_known):
                return state
            if state.active == "deactivating":
                seconds = 2 * self._settings.grace_seconds + KILL_SECONDS
                with contextlib.suppress(AgentError):
                    await self._systemd.stop(name, timeout_seconds=seconds)
            elif state.main_pid and await self._wait_for_process(name, state.main_pid):
                pause = _SHORTEST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask(self, name: str) -> UnitState:
        """Its state. PID 1 does not answer while it begins anew: that ends no hook."""
        deadline = time.monotonic() + _SILENCE_SECONDS
        while True:
            try:
                return await self._systemd.state(name)
            except AgentError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_LONGEST_PAUSE)

    async def _wait_for_process(self, name: str, pid: int) -> bool:
        """Wait until the main process ends; False where it had ended already."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            # only then is it sure that the descriptor is not that of a later process
            if (await self._ask(name)).main_pid != pid:
                return False
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return True

    async def _end_of(self, state: UnitState, follower: Follower) -> HookEnd:
        """What became of it, and the last of what it said."""
        if not state.is_known:
            raise AgentError(
                f"cannot tell how {state.name} ended: systemd does not know it any more",
                code=Code.HOOK_FAILED,
                remedy=f"Find out who stopped it: journalctl -u {state.name}",
            )
        if state.result == "signal" and await self._systemd.is_stopping():
            await asyncio.Event().wait()  # for our own SIGTERM: a shutdown is no failure of a hook
        left = await asyncio.to_thread(_settled_members, state)
        readers = await asyncio.to_thread(lambda: tuple(filter(relay.is_reader, left)))
        await follower.finish()
        left_over = tuple(each for each in left if each not in readers)
        return HookEnd(_completed(state), left_over, readers=readers, hints=_hints(state))

    def _properties(
        self, mark: HookMark, command: Command, timeout_seconds: float
    ) -> list[tuple[str, str]]:
        """As in unit files. What journald would drop or change is switched off."""
        found = [
            ("Slice", SLICE),
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("TimeoutStartSec", f"{max(1, round(timeout_seconds * 1000))}ms"),
            ("TimeoutStopSec", f"{max(1, round(self._settings.grace_seconds * 1000))}ms"),
            ("KillMode", "control-group"),
            ("SendSIGKILL", "yes"),
            ("OOMPolicy", "continue"),
            ("WorkingDirectory", command.cwd),
            ("UMask", "0022"),
            ("IgnoreSIGPIPE", "no"),
            ("StandardInput", "null"),
            ("StandardOutput", "journal"),
            ("StandardError", "journal"),
            ("SyslogIdentifier", "deploy-hook"),
            ("SyslogLevelPrefix", "no"),
            # 0 means "as journald is configured" here, and not "no limit"
            ("LogRateLimitIntervalSec", "1s"),
            ("LogRateLimitBurst", "10000000"),
            *(("LogExtraFields", _field(name, value)) for name, value in mark.fields.items()),
            *sandbox.properties(self._settings, command.cwd),
        ]
        if command.user is not None:
            found.append(("User", command.user.name))
        return found


def _unit(mark: HookMark) -> str:
    return f"deploy-{mark.name}.service"


def _field(name: str, value: str) -> str:
    """A field for the journal; PID 1 would take it apart at blanks when it reads the unit again."""
    return f"{name}={plain(value)}".replace(" ", r"\x20")


def _description(mark: HookMark) -> str:
    fields = mark.fields
    words = (fields.get(name, "") for name in ("LIFECYCLE_EVENT", "HOOK", "DEPLOYMENT_ID"))
    return plain(" ".join(("Hook", *filter(None, words))))


def _matches(mark: HookMark) -> tuple[str, ...]:
    return f"_SYSTEMD_UNIT={_unit(mark)}", "_TRANSPORT=stdout"


def _leaf(state: UnitState) -> Leaf | None:
    path = cgroups.unit_folder(state.cgroup)
    return Leaf(path) if path is not None else None


def _members(state: UnitState) -> list[Process]:
    leaf = _leaf(state)
    return leaf.members() if leaf is not None else []


def _settled_members(state: UnitState) -> list[Process]:
    """What a hook left; blocks until the reader of its output has come to the end of it.

    The reader stays while something holds the output, be it in another cgroup.
    """
    leaf = _leaf(state)
    if leaf is None:
        return []
    deadline = time.monotonic() + _DRAIN_SECONDS
    left = settled(leaf)
    while left and all(map(relay.is_reader, left)) and time.monotonic() < deadline:
        time.sleep(_SHORTEST_PAUSE)
        left = leaf.members()
    return left


def _describe_members(state: UnitState) -> list[str]:
    found = (each for each in _members(state) if not relay.is_reader(each))
    return [processes.describe(each) for each in found]


def _completed(state: UnitState) -> Completed:
    has_exited = state.exit_kind == os.CLD_EXITED
    was_killed = state.exit_kind in (os.CLD_KILLED, os.CLD_DUMPED)
    ended = state.main_ended / 1e6 or time.monotonic()
    return Completed(
        exit_code=state.exit_status if has_exited else None,
        signal=signal.Signals(state.exit_status) if was_killed else None,
        seconds=max(0.0, ended - state.main_began / 1e6) if state.main_began else 0.0,
        timed_out=state.result == "timeout",
    )


def _hints(state: UnitState) -> tuple[str, ...]:
    if state.result == "oom-kill":
        return ("the kernel ended it for want of memory; see hooks.memory_max in agent.yaml",)
    if state.exit_kind == os.CLD_EXITED and state.exit_status in _NOT_STARTED:
        cause = _NOT_STARTED[state.exit_status]
        return (f"with {state.exit_status} systemd says that {cause}: journalctl -u {state.name}",)
    return ()
