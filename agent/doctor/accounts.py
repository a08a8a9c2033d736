"""The Unix group whose members may deploy."""

from __future__ import annotations

import grp
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host


def look(host: Host) -> Iterator[Finding]:
    """Whether it exists, and who is in it."""
    name = host.settings.api_group
    try:
        members = grp.getgrnam(name).gr_mem
    except KeyError:
        if host.is_system:
            yield finding.warning(
                f"there is no group {name}: only root may deploy",
                f"Make it: addgroup --system {name}",
            )
        else:
            yield finding.ok("only its own user and root may deploy")
        return
    who = f"root and {', '.join(members)} (group {name})" if members else "only root"
    yield finding.ok(f"{who} may deploy")
