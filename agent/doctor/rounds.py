"""One round: every subject at once, each in a thread of its own and within its deadline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.doctor import (
    accounts,
    applications,
    clock,
    config,
    consul,
    dbus,
    disk,
    finding,
    journal,
    running,
    sources,
    state,
    systemd,
    upgrades,
)
from agent.doctor.finding import Finding
from agent.doctor.host import Host

logger = logging.getLogger(__name__)

Look = Callable[[Host], Iterator[Finding]]

LOOK_SECONDS = 8.0

SUBJECTS: dict[str, Look] = {
    "agent": running.look,
    "config": config.look,
    "state": state.look,
    "applications": applications.look,
    "sources": sources.look,
    "consul": consul.look,
    "disk": disk.look,
    "systemd": systemd.look,
    "journal": journal.look,
    "dbus": dbus.look,
    "clock": clock.look,
    "accounts": accounts.look,
    "upgrades": upgrades.look,
}
"""In the order in which they are shown: what stops deployments comes first."""


@dataclass
class _Look:
    subject: str
    thread: threading.Thread
    found: list[Finding] = field(default_factory=list)


def examine(host: Host, *, seconds: float = LOOK_SECONDS) -> list[tuple[str, Finding]]:
    """What all subjects found, by subject; none takes longer than `seconds`.

    The threads are no reason to wait: one that hangs, say in a dead network mount, is left behind.
    """
    deadline = time.monotonic() + seconds
    looks = [_begin(subject, look, host) for subject, look in SUBJECTS.items()]
    results = []
    for each in looks:
        each.thread.join(max(0.0, deadline - time.monotonic()))
        results += [(each.subject, found) for found in list(each.found)]
        if each.thread.is_alive():
            results.append((each.subject, _hangs(seconds)))
    return results


def _begin(subject: str, look: Look, host: Host) -> _Look:
    found: list[Finding] = []
    thread = threading.Thread(target=_collect, args=(look, host, found), daemon=True, name=subject)
    thread.start()
    return _Look(subject, thread, found)


def _collect(look: Look, host: Host, found: list[Finding]) -> None:
    try:
        for each in look(host):
            found.append(each)  # noqa: PERF402 - what it found before it hangs counts
    except Exception as error:
        logger.debug("a subject failed", exc_info=True)
        text = f"it could not be looked at: {type(error).__name__}: {error}"
        found.append(
            finding.unknown(text, "Report this with the output of: agentctl doctor --json")
        )


def _hangs(seconds: float) -> Finding:
    return finding.problem(
        f"no answer within {seconds:g} s: something that it looks at hangs",
        "See what waits for a disk or a network mount: ps -eo pid,stat,wchan:20,args | grep ' D'",
    )
