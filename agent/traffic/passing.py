"""Whether Consul's own checks of a service pass, and the wait until they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.model.consul import CheckStatus, ServiceHealth
from agent.model.errors import AgentError, Code
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

_LOOK_SECONDS = 0.2
_SHOWN_CHARACTERS = 200


async def wait_for_passing(
    consul: Consul, limits: Mapping[str, float], *, log: DeploymentLog, cancel: Cancel
) -> None:
    """Wait until all checks pass; limits: seconds, by the service's id.

    Maintenance does not count. Raises AgentError (CONSUL_CRITICAL), or as Consul's calls do.
    """
    began, said = time.monotonic(), ""
    while True:
        cancel.check()
        here = await consul.services_here()
        waiting = {each: here.get(each) for each in limits if not is_passing(here.get(each))}
        if not waiting:
            return
        words = ", ".join(sorted(waiting))
        if words != said:
            said = words
            log.line(f"{words}: waiting until Consul's checks pass")
        for each, found in waiting.items():
            if time.monotonic() - began > limits[each]:
                raise _critical(each, found, limits[each])
        await asyncio.sleep(_LOOK_SECONDS)


def is_passing(found: ServiceHealth | None) -> bool:
    """Whether it is registered, and all its checks pass; maintenance does not count."""
    return found is not None and all(each.status is CheckStatus.PASSING for each in found.checks)


def failing_checks(found: ServiceHealth) -> tuple[str, ...]:
    """Those that do not pass, a line each, with what they said last."""
    return tuple(
        f"{each.name or each.id}: {each.status}: {each.output.strip()[:_SHOWN_CHARACTERS]}"
        for each in found.checks
        if each.status is not CheckStatus.PASSING
    )


def _critical(service_id: str, found: ServiceHealth | None, seconds: float) -> AgentError:
    cause = f"its checks in Consul do not pass within {seconds:g} s"
    return AgentError(
        f"cannot let {service_id} into traffic: {cause if found else 'it is not registered'}",
        code=Code.CONSUL_CRITICAL,
        details=() if found is None else failing_checks(found),
        remedy="See what its check asks, or give it more time: consul: {within: 2m}",
        where=service_id,
    )
