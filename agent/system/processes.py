"""The host's processes: who there is, who started whom, and signals that meet the right one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Identity = tuple[int, int]
"""A pid and its start in clock ticks since boot: the pair is never used twice within one boot."""

_COMMAND_CHARACTERS = 80


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process as it was when looked at. A zombie has ended, and waits for its parent."""

    pid: int
    start: int
    parent: int
    group: int
    session: int
    is_zombie: bool

    @property
    def identity(self) -> Identity:
        """What tells it from a later process that is given the same pid."""
        return self.pid, self.start


def read_process(pid: int) -> Process | None:
    """The process `pid`, or None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): "pid (comm) state ppid pgrp session … starttime"; comm may hold blanks and brackets
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        start=int(fields[19]),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        is_zombie=fields[0] in (b"Z", b"X"),
    )


def read_processes(pids: Iterable[int]) -> list[Process]:
    """Those of `pids` that are alive."""
    found = (read_process(pid) for pid in pids)
    return [process for process in found if process is not None and not process.is_zombie]


def read_table() -> dict[int, Process]:
    """Every process of the host by pid, zombies too."""
    found = (read_process(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc"))))
    return {process.pid: process for process in found if process is not None}


def with_descendants(table: Mapping[int, Process], roots: Iterable[int]) -> set[int]:
    """`roots` and every process of `table` below them."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def has_environment(process: Process, entries: Mapping[str, str]) -> bool:
    """Whether a process was started with all of `entries`; False where that may not be read."""
    import psutil  # imported here: 1 MB of the daemon, which needs it only without systemd

    try:
        environment = psutil.Process(process.pid).environ()
    except (psutil.Error, OSError):
        return False
    return all(environment.get(name) == value for name, value in entries.items())


def describe(process: Process) -> str:
    """Its pid and command line, such as "1234 sleep 1000", of bounded length."""
    return f"{process.pid} {command_line(process)}"


def command_line(process: Process) -> str:
    """Its command line, of bounded length; "[name]" for one without, "(ended)" for none."""
    folder = Path(f"/proc/{process.pid}")
    try:
        # as psutil would: but that is 1 MB, and every client of PID 1 that is ended is described
        words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        command = os.fsdecode(b" ".join(words))
        command = command or f"[{os.fsdecode((folder / 'comm').read_bytes().rstrip())}]"
    except OSError:
        command = "(ended)"
    command = "".join(character if character.isprintable() else "?" for character in command)
    if len(command) > _COMMAND_CHARACTERS:
        command = command[: _COMMAND_CHARACTERS - 1] + "…"
    return command


def read_argument(process: Process) -> str:
    """The first word of its command line, which is its own choice; "" where that is not known."""
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return os.fsdecode(command.partition(b"\0")[0])


def send(process: Process, signum: signal.Signals) -> bool:
    """Send a signal to this very process, never to one that took over its pid.

    False where it has ended, or may not be signalled (it has become another user's).
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        found = read_process(process.pid)
        if found is None or found.start != process.start:
            return False
        signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def reap_orphans(own: Collection[int]) -> None:
    """Collect ended processes that a subreaper inherited; `own` are waited for elsewhere.

    Hooks run in sessions of their own, so a zombie of our session is nobody's orphan.
    """
    myself = os.getpid()
    session = os.getsid(0)
    for process in read_table().values():
        is_orphan = process.parent == myself and process.session != session
        if is_orphan and process.is_zombie and process.pid not in own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def now_ticks() -> int:
    """Now, as `Process.start` counts: proc(5), starttime."""
    return _ticks(time.clock_gettime(time.CLOCK_BOOTTIME))


def ticks_at(unix_seconds: float) -> int:
    """A moment as `Process.start` counts, one less as both are rounded; below 0 before the boot."""
    return now_ticks() - _ticks(time.time() - unix_seconds) - 1


def _ticks(seconds: float) -> int:
    return int(seconds * os.sysconf("SC_CLK_TCK"))


def seconds_since(ticks: int) -> float:
    """How long ago now_ticks() was `ticks`."""
    return max(0.0, (now_ticks() - ticks) / os.sysconf("SC_CLK_TCK"))


def boot_id() -> str:
    """Tells one boot of the host from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
