"""What starts hooks, keeps the processes of each together, and ends them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.system.deployment_log import HookOutput
from agent.system.process import Command, Completed
from agent.system.processes import Identity, Process

KILL_SECONDS = 5.0
"""A process that outlives KILL so long is stuck in the kernel: it is named, and left."""


@dataclass(frozen=True, slots=True)
class HookMark:
    """What tells one hook's processes from all others, also after the agent was killed.

    name:        hook-<deployment>-<n>, of its cgroup or transient unit.
    environment: entries that its processes inherit (deployment and lifecycle event).
    since:       no process of it is older, in clock ticks since boot.
    known:       processes seen as its own.
    others:      processes that other hooks of the deployment left: they must be spared.
    fields:      what the journal is told of each line that it writes.
    cursor:      where in the journal its output was read to, "" for its beginning.
    """

    name: str
    environment: Mapping[str, str]
    since: int
    known: tuple[Identity, ...] = ()
    others: tuple[Identity, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class HookEnd:
    """How a hook ended. left_over: what still runs of it, even after KILL if it did not succeed.

    readers: what reads the output of these, and of whatever else holds it. hints: what its backend
    knows of why it failed.
    """

    completed: Completed
    left_over: tuple[Process, ...]
    readers: tuple[Process, ...] = ()
    hints: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Exit code 0, in time."""
        return self.completed.exit_code == 0 and not self.completed.timed_out

    @property
    def asks_for_retry(self) -> bool:
        """Exit code 75 (EX_TEMPFAIL of sysexits.h), in time."""
        return self.completed.exit_code == os.EX_TEMPFAIL and not self.completed.timed_out


class HookWatch(Protocol):
    """What a backend tells of a hook while it runs; all of it may come from a thread.

    is_leaving: whether the agent is about to end.
    """

    @property
    def output(self) -> HookOutput:
        """Where what it writes goes to."""

    @property
    def is_leaving(self) -> bool:
        """See above."""

    def begun(self, main: Process) -> None:
        """Its main process was started."""

    def heard(self, cursor: str) -> None:
        """Its output is in the log up to this place of the journal."""


class HookBackend(Protocol):
    """One way to run hooks; one hook at a time. outlives: whether a hook needs no living agent."""

    outlives: bool

    async def run(
        self, mark: HookMark, command: Command, *, timeout_seconds: float, watch: HookWatch
    ) -> HookEnd:
        """Run a hook until its main process ends.

        Unless it ends with exit code 0, all its processes are ended before this returns: TERM,
        grace, KILL. So it is when the caller is cancelled, unless the hook outlives the agent, and
        the agent is leaving: then it goes on.
        """

    async def adopt(self, mark: HookMark, *, watch: HookWatch) -> HookEnd:
        """Go on with a hook that an agent before this one began, as run() would."""

    async def is_there(self, mark: HookMark, /) -> bool:
        """Whether there is a hook to adopt, running or ended."""

    async def forget(self, mark: HookMark, end: HookEnd, /) -> None:
        """A hook's end was saved, and nothing of it runs: what tells of its end may go."""

    async def stop(self, mark: HookMark) -> list[str]:
        """TERM, grace, KILL of all that still runs of a hook: each "pid command"."""

    async def forget_if_over(self, mark: HookMark, /) -> bool:
        """Forget a hook that left something, if nothing of that runs any more."""

    async def has_process(self, mark: HookMark, pid: int, /) -> bool:
        """Whether a process surely is one of a hook that runs; what it says of itself is none."""


class EndsWithAgent:
    """The part of a backend whose hooks are the agent's own children: nothing to adopt."""

    outlives = False

    async def adopt(self, mark: HookMark, *, watch: HookWatch) -> HookEnd:
        """See HookBackend."""
        raise NotImplementedError(f"{mark.name} cannot be adopted: is_there() says so")

    async def is_there(self, _mark: HookMark) -> bool:
        """See HookBackend."""
        return False

    async def forget(self, _mark: HookMark, _end: HookEnd) -> None:
        """See HookBackend."""

    async def forget_if_over(self, _mark: HookMark) -> bool:
        """See HookBackend."""
        return False
