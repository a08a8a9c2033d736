"""systemd: whether it is this host's init, and how the agent's own unit is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.errors import AgentError
from agent.system import process, systemd
from agent.system.systemd import Systemd, UnitState

_UNIT = "deploy-agent.service"
_ASK_SECONDS = 4.0


def look(host: Host) -> Iterator[Finding]:
    """Its version, then the unit."""
    if not systemd.is_booted():
        yield finding.warning(
            "it is not this host's init: units of an appspec cannot be started here",
            "Deploy bundles whose hooks start their service, or use a host with systemd",
        )
        return
    try:
        version = process.capture_blocking(["systemctl", "--version"], timeout_seconds=_ASK_SECONDS)
        yield finding.ok(version.out.partition("\n")[0])
        if host.is_system:
            yield from _look_at_unit(asyncio.run(Systemd().state(_UNIT)))
    except AgentError as error:
        yield finding.problem(error.message, "See whether PID 1 answers: systemctl status")


def _look_at_unit(unit: UnitState) -> Iterator[Finding]:
    if not unit.is_known:
        yield finding.warning(
            f"there is no {_UNIT}: nothing starts the agent at boot",
            "Install the .deb, or a unit of your own (systemd/deploy-agent.service)",
        )
        return
    if unit.is_running:
        yield finding.ok(str(unit))
    else:
        yield finding.problem(
            str(unit),
            f"See why: journalctl -u {_UNIT} -n 50; then start it: systemctl start {_UNIT}",
        )
    if unit.file_state not in ("enabled", "enabled-runtime", "static"):
        yield finding.warning(
            f"{_UNIT} is {unit.file_state or 'not enabled'}: it does not start at boot",
            f"Let it: systemctl enable {_UNIT}",
        )
    if unit.restarts:
        times = "once" if unit.restarts == 1 else f"{unit.restarts} times"
        yield finding.warning(
            f"systemd had to restart {_UNIT} {times} since it was started",
            f"See why: journalctl -u {_UNIT} -p warning",
        )
    if unit.needs_reload:
        yield finding.warning(
            f"{unit.fragment} changed since systemd read it", "Let it: systemctl daemon-reload"
        )
