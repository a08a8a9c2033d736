"""The journal: whether journald takes entries, keeps them, and lets this user read the agent's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.errors import AgentError
from agent.system import process, systemd

_SOCKET = "/run/systemd/journal/socket"
_ASK_SECONDS = 4.0


def look(host: Host) -> Iterator[Finding]:
    """Writing, keeping, reading."""
    if not systemd.is_booted():
        yield finding.ok("there is none without systemd: the agent writes to stderr")
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.connect(_SOCKET)
    except OSError as error:
        yield finding.problem(
            f"journald does not listen at {_SOCKET}: {error.strerror}",
            "Start it: systemctl start systemd-journald.socket systemd-journald",
        )
        return
    if os.path.isdir("/var/log/journal"):
        yield finding.ok("journald listens, and keeps entries across boots")
    else:
        yield finding.warning(
            "entries are lost at a reboot: there is no /var/log/journal",
            "Keep them: mkdir -p /var/log/journal && systemctl restart systemd-journald",
        )
    if host.is_system:
        yield from _look_at_entries()


def _look_at_entries() -> Iterator[Finding]:
    argv = ["journalctl", "--no-pager", "-q", "-u", "deploy-agent", "-n", "1", "-o", "cat"]
    try:
        answer = process.capture_blocking(argv, timeout_seconds=_ASK_SECONDS)
    except AgentError as error:
        yield finding.problem(
            error.message, "See what the journal suffers from: journalctl --verify"
        )
        return
    if answer.code == 0 and answer.out:
        yield finding.ok("the agent's entries can be read")
    elif os.geteuid() != 0:
        remedy = "Use sudo, or join the group: adduser USER systemd-journal"
        yield finding.unknown("no entry of the agent can be read by this user", remedy)
    else:
        yield finding.warning(
            f"there is no entry of the agent: {answer.err.partition(chr(10))[0] or 'it is empty'}",
            "See whether it runs: systemctl status deploy-agent",
        )
