"""D-Bus: the agent does without it, but people's own tools and hooks may not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.system import systemd

_SOCKET = "/run/dbus/system_bus_socket"


def look(_host: Host) -> Iterator[Finding]:
    """Whether the system bus takes connections."""
    if not systemd.is_booted():
        yield finding.ok("not needed without systemd")
        return
    try:
        with socket.socket(socket.AF_UNIX) as bus:
            bus.settimeout(2.0)
            bus.connect(_SOCKET)
    except OSError as error:
        yield finding.warning(
            f"nothing answers at {_SOCKET} ({error.strerror}): systemd-run --wait, and systemctl"
            " for users other than root, need it",
            "Install and start it: apt-get install dbus; systemctl start dbus.socket",
        )
    else:
        yield finding.ok("the system bus answers")
