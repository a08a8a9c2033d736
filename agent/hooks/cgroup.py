"""Hooks in a cgroup of their own: whatever a hook starts is in it, and ends with it.

Needs root and a writable cgroup2 hierarchy with cgroup.kill (Linux 5.14); see
Documentation/admin-guide/cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.hooks.backend import KILL_SECONDS, EndsWithAgent, HookEnd, HookMark, HookWatch
from agent.hooks.group import GroupBackend, settled
from agent.model.errors import Code, from_os_error
from agent.system import cgroups, process, processes
from agent.system.cancel import Cancel
from agent.system.process import Command
from agent.system.processes import Identity, Process
from agent.system.threads import run_blocking

_FOLDER = "deploy-agent"
_YOUNG_SECONDS = 60.0
# The hook's user may not write into cgroup.procs, but a descriptor that root opened may be used
# by whoever holds it: it comes as stdin. The shell's own variables must not reach the hook.
_ENTER = 'echo 0 >&0 || exit 71; unset PWD OLDPWD SHLVL _; exec "$@" </dev/null'


def find_parent() -> Path | None:
    """The folder for hooks' cgroups, made if need be; None where that cannot be had."""
    if os.geteuid() != 0:
        return None
    own = cgroups.own_folder()
    if own is None:
        return None
    parent = own / _FOLDER
    try:
        parent.mkdir(exist_ok=True)
    except OSError:
        return None
    usable = os.access(parent / "cgroup.kill", os.W_OK)
    return parent if usable else None


class CgroupBackend(EndsWithAgent):
    """Runs each hook in a leaf below `parent`, and removes the leaf when it is empty."""

    def __init__(self, parent: Path, *, grace_seconds: float) -> None:
        self._parent = parent
        self._grace_seconds = grace_seconds
        self._by_marks = GroupBackend(grace_seconds=grace_seconds)

    async def run(
        self, mark: HookMark, command: Command, *, timeout_seconds: float, watch: HookWatch
    ) -> HookEnd:
        """See HookBackend."""
        leaf = Leaf(self._parent / mark.name, begun=watch.begun)
        try:
            entrance = await run_blocking(Cancel(), leaf.open)
            completed = await process.run(
                dataclasses.replace(
                    command,
                    argv=("/bin/sh", "-c", _ENTER, "sh", *command.argv),
                    stdin=entrance,
                ),
                timeout_seconds=timeout_seconds,
                grace_seconds=self._grace_seconds,
                output=watch.output.write,
                tree=leaf,
            )
        except asyncio.CancelledError:
            await self.stop(dataclasses.replace(mark, known=leaf.known))
            raise
        finally:
            leaf.close()
        if HookEnd(completed, ()).is_success:
            left_over = await asyncio.to_thread(settled, leaf)
            await asyncio.to_thread(self._remove_empty, mark)
        else:
            await self.stop(dataclasses.replace(mark, known=leaf.known))
            left_over = await asyncio.to_thread(leaf.members)
        return HookEnd(completed, tuple(left_over))

    async def has_process(self, mark: HookMark, pid: int) -> bool:
        """See HookBackend."""
        return pid in await asyncio.to_thread(cgroups.read_pids, self._parent / mark.name)

    async def stop(self, mark: HookMark) -> list[str]:
        """See HookBackend. Also ends what has left the cgroup but can be told by its marks."""
        ended = await process.end(Leaf(self._parent / mark.name), self._grace_seconds)
        ended += await self._by_marks.stop(mark)
        await asyncio.to_thread(self._remove_empty, mark)
        return ended

    def _remove_empty(self, mark: HookMark) -> None:
        """Remove the leaves in which nothing runs any more, of earlier hooks too.

        A young one may be another agent's (agentctl --foreground), that its hook is yet to enter.
        """
        young = time.time() - _YOUNG_SECONDS
        for path in self._parent.glob("hook-*"):
            with contextlib.suppress(FileNotFoundError):
                if path.name == mark.name or path.stat().st_mtime < young:
                    Leaf(path).remove()


class Leaf:
    """The cgroup of one hook (a process.Tree). It need not exist."""

    def __init__(self, path: Path, *, begun: Callable[[Process], None] | None = None) -> None:
        self.path = path
        self.known: tuple[Identity, ...] = ()
        self._begun = begun
        self._entrance = -1

    def open(self) -> int:
        """Make it; its cgroup.procs, open for writing until close(). Raises AgentError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._entrance = os.open(self.path / "cgroup.procs", os.O_WRONLY)
        except OSError as error:
            doing = f"make the cgroup {self.path}"
            raise from_os_error(error, doing, code=Code.HOOK_NOT_RUNNABLE) from error
        return self._entrance

    def close(self) -> None:
        """Close what open() opened."""
        if self._entrance >= 0:
            os.close(self._entrance)

    def begin(self, main: Process) -> None:
        """Remember the main process."""
        self.known = (main.identity,)
        if self._begun is not None:
            self._begun(main)

    def members(self) -> list[Process]:
        """Those alive, in cgroups that the hook made below its own as well."""
        return sorted(processes.read_processes(cgroups.read_pids(self.path)))

    def kill(self) -> None:
        """All at once: nobody can fork out of it."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.path, "cgroup.kill").write_text("1", "ascii")
        deadline = time.monotonic() + KILL_SECONDS
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove it if nothing is in it any more."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):  # EBUSY: something is
                os.rmdir(folder)
