"""What starts hooks, keeps the processes of each together, and ends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.system.process import Command, Completed, Output
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
    """

    name: str
    environment: Mapping[str, str]
    since: int
    known: tuple[Identity, ...] = ()
    others: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class HookEnd:
    """How a hook ended. left_over: what still runs of it, even after KILL if it did not succeed."""

    completed: Completed
    left_over: tuple[Process, ...]

    @property
    def is_success(self) -> bool:
        """Exit code 0, in time."""
        return self.completed.exit_code == 0 and not self.completed.timed_out

    @property
    def asks_for_retry(self) -> bool:
        """Exit code 75 (EX_TEMPFAIL of sysexits.h), in time."""
        return self.completed.exit_code == os.EX_TEMPFAIL and not self.completed.timed_out


class HookBackend(Protocol):
    """One way to run hooks; one hook at a time."""

    async def run(
        self,
        mark: HookMark,
        command: Command,
        *,
        timeout_seconds: float,
        output: Output,
        begun: Callable[[Process], None],
    ) -> HookEnd:
        """Run a hook until its main process ends; `begun` is called in a thread.

        Unless it ends with exit code 0, all its processes are ended before this returns: TERM,
        grace, KILL. So it is when the caller is cancelled.
        """

    async def stop(self, mark: HookMark) -> list[str]:
        """TERM, grace, KILL of all that still runs of a hook: each "pid command"."""
