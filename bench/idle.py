"""What the agent costs while nothing happens: memory, processor time, wake-ups."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def measure(pid: int, seconds: float, poll_seconds: float) -> dict[str, float]:
    """Figures by their names, of the process `pid` and its threads, per minute.

    A wake-up is a voluntary context switch of any thread: proc(5). per poll: divided by the polls.
    """
    before = _switches(pid), _cpu_seconds(pid)
    begun = time.monotonic()
    time.sleep(seconds)
    minutes = (time.monotonic() - begun) / 60
    wake_ups = (_switches(pid) - before[0]) / minutes
    return {
        "RSS MB": _status(Path(f"/proc/{pid}"), "VmRSS") / 1024,
        "processor ms a minute": (_cpu_seconds(pid) - before[1]) * 1000 / minutes,
        "wake-ups a minute": wake_ups,
        "wake-ups a poll": wake_ups / (60 / poll_seconds),
    }


def _switches(pid: int) -> int:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(_status(each, "voluntary_ctxt_switches") for each in threads)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _status(process: Path, name: str) -> int:
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)
