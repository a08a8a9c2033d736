"""Whether Consul's servers, which everybody else asks, know a service as this host does.

The local agent tells them of each change, with the token that the service was registered with. What
they refuse, it only logs: on this host all looks well then, and nobody is ever sent here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent.model.consul import CheckStatus, ServiceHealth
from agent.model.errors import AgentError
from agent.system.cancel import Cancel

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

_TOLD_SECONDS = 2.0  # it takes some milliseconds; what fails is tried again after 15 s
_ANSWER_SECONDS = 2.0
_LOOK_SECONDS = 0.05


async def seen_by(consul: Consul, here: ServiceHealth, host: str) -> ServiceHealth | None:
    """How they have this host's registration; None where they have not. Raises AgentError."""
    for found in await consul.health(here.name):
        if (found.host, found.id) == (host, here.id):
            return found
    return None


async def find_untold(
    consul: Consul, services: Iterable[ServiceHealth], cancel: Cancel
) -> dict[str, str]:
    """By id, a remark on each service of this host that they do not take for passing in time.

    A question without an answer is a remark, too.
    """
    remarks, ends = {}, time.monotonic() + _TOLD_SECONDS
    for service in services:
        while remark := await _look(consul, service):
            if time.monotonic() > ends:
                remarks[service.id] = f"{service.id} passes on this host; {remark}"
                break
            cancel.check()
            await asyncio.sleep(_LOOK_SECONDS)
    return remarks


async def _look(consul: Consul, service: ServiceHealth) -> str:
    """What is wrong with how they have it, "" if nothing."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            found = await seen_by(consul, service, service.host)
    except TimeoutError:
        return f"Consul's servers have not answered in {_ANSWER_SECONDS:g} s"
    except AgentError as error:
        return f"what Consul's servers know is open: {error.message}"
    if found is not None and found.status is CheckStatus.PASSING:
        return ""
    how = f"take it for {found.status}" if found else "do not know it"
    return f"it gets no traffic yet: Consul's servers {how}; to see why, run: agentctl doctor"
