"""One service in Consul at a time: registered, registered anew, in maintenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from agent.model.appspec import ConsulService
from agent.model.consul import ServiceHealth, ServiceRegistration
from agent.model.deployment import Revision
from agent.model.errors import NotFound
from agent.system.deployment_log import DeploymentLog
from agent.traffic import registration
from agent.traffic.record import Record

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul


class Entries:
    """Those of one application. reason: of the maintenance of its deployment.

    drained: why a person keeps them out of traffic, "" if nobody does.
    """

    def __init__(
        self, consul: Consul, application: str, *, reason: str, log: DeploymentLog, drained: str
    ) -> None:
        self._consul = consul
        self._application = application
        self._reason = reason
        self._log = log
        self._drained = drained

    async def maintain(self, service_id: str, reason: str | None) -> None:
        """Begin it, or end it where there is no reason."""
        try:
            await self._consul.set_maintenance(service_id, reason)
        except NotFound:
            return  # deregistered meanwhile

    async def register_anew(self, wanted: ServiceRegistration, was: ServiceHealth | None) -> None:
        """Register it so that it is critical until its check has asked this revision.

        was: how it is registered. A check that Consul knows keeps what it said of the revision
        before; so it is taken out first, while the service is in maintenance.
        """
        if was is not None and was.checks and wanted.checks:
            if was.maintenance is None:
                await self.maintain(wanted.id, self._reason)
            await self._consul.register(dataclasses.replace(wanted, checks=()))
        await self._consul.register(wanted)
        if self._drained:
            await self.maintain(wanted.id, self._drained)
        self._log.line(f"{wanted.id}: registered in Consul")

    async def register_before(
        self,
        services: Sequence[ConsulService],
        revision: Revision,
        known: Record,
        unproved: Collection[str],
    ) -> None:
        """As they were of a revision, where the deployment has changed that.

        unproved: ids of those whose checks have to ask it anew.
        """
        here = await self._consul.services_here()
        for service in services:
            if registration.find_stranger(self._application, service, here.values()) is not None:
                continue
            deployment_id = known.before.get(service.id, {}).get(registration.DEPLOYMENT, "")
            wanted = registration.registration(service, revision, deployment_id)
            if service.id in unproved and service.id in here:
                await self.register_anew(wanted, here[service.id])
            elif service.id in known.registered:
                await self._consul.register(wanted)
                self._log.line(f"{service.id}: registered in Consul as before")
