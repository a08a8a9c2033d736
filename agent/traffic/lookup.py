"""Which services of an application are registered, by whomever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agent.model.appspec import ConsulService
from agent.model.consul import ServiceHealth
from agent.traffic import registration

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul


async def find(
    consul: Consul, application: str, services: Iterable[ConsulService], ids: Iterable[str]
) -> dict[str, ServiceHealth]:
    """Those that are registered, by id; also where somebody else did it under another id.

    Raises AgentError, also where the token may not see one: that is not as if it were not there.
    """
    here = await consul.services_here()
    found = {}
    for service in services:
        health = here.get(service.id) or await consul.service_here(service.id)
        health = health or registration.find_stranger(application, service, here.values())
        if health is not None:
            found[health.id] = health
    for each in ids:
        health = here.get(each) or await consul.service_here(each)
        if health is not None:
            found[each] = health
    return found
