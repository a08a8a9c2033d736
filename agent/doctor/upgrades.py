"""Upgrades of the host: what may restart the agent in the middle of a deployment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host

_FOLDER = Path("/etc/needrestart")
_FILE = _FOLDER / "conf.d" / "deploy-agent.conf"


def look(_host: Host) -> Iterator[Finding]:
    """needrestart(1) restarts what uses replaced libraries, unless it is told not to."""
    if not os.path.exists("/usr/sbin/needrestart"):
        yield finding.ok("needrestart is not installed")
    elif any("deploy-agent" in text for text in _texts()):
        yield finding.ok("needrestart leaves the agent alone")
    else:
        yield finding.warning(
            "needrestart may restart the agent in the middle of a deployment, which it then resumes"
            " or undoes",
            f"Keep it from that: echo '$nrconf{{override_rc}}{{qr(^deploy-agent)}} = 0;' > {_FILE}",
        )


def _texts() -> Iterator[str]:
    for path in (_FOLDER / "needrestart.conf", *sorted((_FOLDER / "conf.d").glob("*.conf"))):
        try:
            yield path.read_text("utf-8", "replace")
        except OSError:
            continue
