"""Hooks where no cgroup can be had: found by session, ancestry and environment.

The agent is a child subreaper then, so that what a hook leaves behind becomes the agent's child.
A process with an environment of its own, in a session of its own, is still found while the agent
lives; after the agent was killed it is not (docs/hooks.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping

from agent.hooks.backend import KILL_SECONDS, EndsWithAgent, HookEnd, HookMark, HookWatch
from agent.system import libc, process, processes
from agent.system.process import Command
from agent.system.processes import Identity, Process

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_STOP_ROUNDS = 20
_LOOKS = 3  # without finding anyone
_SETTLE_SECONDS = 0.05  # for what ends together with the main process


class GroupBackend(EndsWithAgent):
    """Runs each hook in a session of its own."""

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds

    async def run(
        self, mark: HookMark, command: Command, *, timeout_seconds: float, watch: HookWatch
    ) -> HookEnd:
        """See HookBackend."""
        tree = HookProcesses(mark, begun=watch.begun)
        await asyncio.to_thread(tree.look_around)
        completed = await process.run(
            command,
            timeout_seconds=timeout_seconds,
            grace_seconds=self._grace_seconds,
            output=watch.output.write,
            tree=tree,
        )
        if HookEnd(completed, ()).is_success:
            left_over = await asyncio.to_thread(settled, tree)
        else:
            await process.end(tree, self._grace_seconds)
            left_over = await asyncio.to_thread(tree.members)
        await asyncio.to_thread(process.children.reap_orphans)
        return HookEnd(completed, tuple(left_over))

    async def has_process(self, mark: HookMark, pid: int) -> bool:
        """See HookBackend. Below its main process, or in its session."""
        table = await asyncio.to_thread(processes.read_table)
        mains = {each.pid for each in table.values() if each.identity in mark.known}
        return pid in processes.with_descendants(table, mains) or (
            pid in table and table[pid].session in mains
        )

    async def stop(self, mark: HookMark) -> list[str]:
        """See HookBackend."""
        ended = await process.end(HookProcesses(mark), self._grace_seconds)
        await asyncio.to_thread(process.children.reap_orphans)
        return ended


class HookProcesses:
    """The processes of one hook, by all that tells them apart (a process.Tree)."""

    def __init__(self, mark: HookMark, *, begun: Callable[[Process], None] | None = None) -> None:
        self._mark = mark
        self._begun = begun
        self._known = set(mark.known)
        self._before: frozenset[Identity] | None = None
        self._sessions: set[int] = set()  # wholly its own
        self._groups: set[int] = set()

    def look_around(self) -> None:
        """Remember who is there before the hook begins; be the parent of all that it leaves."""
        _adopt_orphans()
        table = processes.read_table()
        self._before = frozenset(each.identity for each in table.values())

    def begin(self, main: Process) -> None:
        """Remember the main process."""
        self._known.add(main.identity)
        if self._begun is not None:
            self._begun(main)

    def members(self) -> list[Process]:
        """Those alive, ordered by pid. Whoever was seen once stays known."""
        table = processes.read_table()
        roots = {each.pid for each in table.values() if self._is_own(each, table)}
        own = processes.with_descendants(table, roots) - self._spared(table)
        found = sorted(table[pid] for pid in own if pid in table)
        self._known.update(each.identity for each in found)
        old = {each.session for each in table.values() if each.start < self._mark.since}
        self._sessions |= {each.session for each in found} - old
        self._groups |= {each.group for each in found if each.session in self._sessions}
        return [each for each in found if not each.is_zombie]

    def kill(self) -> None:
        """STOP them until no new one appears, then KILL, until none is left.

        By group as well as one by one: nobody can fork out of a signal to its group, and one that
        changes its pid all the time is not seen by every look.
        """
        deadline = time.monotonic() + KILL_SECONDS
        stopped: set[Identity] = set()
        looks_without = rounds = 0
        while looks_without < _LOOKS and time.monotonic() < deadline:
            found = self.members()
            looks_without = 0 if found else looks_without + 1
            new = {each.identity for each in found} - stopped
            stopped |= new
            rounds = rounds + 1 if new and rounds < _STOP_ROUNDS else 0
            self._signal_all(found, signal.SIGSTOP if rounds else signal.SIGKILL)
            process.children.reap_orphans()

    def _signal_all(self, found: list[Process], signum: signal.Signals) -> None:
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signum)
        for each in found:
            processes.send(each, signum)

    def _spared(self, table: Mapping[int, Process]) -> set[int]:
        """The agent, and what other hooks left: their sessions, and what these started."""
        others = set(self._mark.others)
        sessions = {each.session for each in table.values() if each.identity in others} - {0}
        roots = {
            each.pid
            for each in table.values()
            if each.identity in others or each.session in sessions
        }
        return processes.with_descendants(table, roots) | _agents(table)

    def _is_own(self, each: Process, table: Mapping[int, Process]) -> bool:
        if each.identity in self._known:
            return True
        if each.start < self._mark.since:
            return False
        if self._before is not None:
            if each.identity in self._before or each.pid in process.children.pids():
                return False
            if each.parent == os.getpid() and each.session != os.getsid(0):
                return True  # inherited, and not there before
        if each.session in self._sessions or self._is_begun_by_known(each, table):
            return True
        return processes.has_environment(each, self._mark.environment)

    def _is_begun_by_known(self, each: Process, table: Mapping[int, Process]) -> bool:
        """Whether its session's leader is known; that one may have ended before it was seen."""
        leader = table.get(each.session)
        return any(
            pid == each.session and (leader is None or leader.start == start)
            for pid, start in self._known
        )


def settled(tree: process.Tree) -> list[Process]:
    """What is left of a hook whose main process ended well; blocks for a moment."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := tree.members()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left


def _agents(table: Mapping[int, Process]) -> set[int]:
    """The agent and whoever started it."""
    found = set()
    each = table.get(os.getpid())
    while each is not None:
        found.add(each.pid)
        each = table.get(each.parent)
    return found


def _adopt_orphans() -> None:
    """Make the agent the parent of processes whose parent ends; may be said again."""
    libc.call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
