"""What the agent writes into Consul, and how it knows again what is its own."""

from __future__ import annotations

from collections.abc import Iterable

from agent.model.appspec import ConsulService
from agent.model.consul import CheckHealth, ServiceCheck, ServiceHealth, ServiceRegistration
from agent.model.deployment import Revision

OWNER = "deploy-agent"  # the key in a service's meta; its value is the application
DEPLOYMENT = "deployment_id"

_DEPLOYMENTS = "deploy-agent: deployment "
_PERSONS = "deploy-agent: drained by "
_LONGEST_VALUE = 512  # of meta: https://developer.hashicorp.com/consul/api-docs/agent/service


def registration(
    service: ConsulService, revision: Revision, deployment_id: str
) -> ServiceRegistration:
    """A service of a revision, critical until its check has run."""
    meta = {
        OWNER: revision.application,
        "version": revision.version,
        "revision": revision.digest,
        DEPLOYMENT: deployment_id,
    }
    return ServiceRegistration(
        id=service.id,
        name=service.name,
        address=service.address,
        port=service.port,
        tags=service.tags,
        meta={key: value[:_LONGEST_VALUE] for key, value in meta.items()},
        checks=_checks(service),
    )


def _checks(service: ConsulService) -> tuple[ServiceCheck, ...]:
    check = service.check
    if check is None:
        return ()
    return (
        ServiceCheck(
            name=f"{service.name}: {check.http or check.tcp or 'by itself'}",
            http=check.http,
            tcp=check.tcp,
            ttl_seconds=check.ttl_seconds,
            interval_seconds=check.interval_seconds,
            timeout_seconds=check.timeout_seconds,
        ),
    )


def is_registered(wanted: ServiceRegistration, found: ServiceHealth) -> bool:
    """Whether it is in Consul just so."""
    return (
        (found.name, found.address, found.port) == (wanted.name, wanted.address, wanted.port)
        and (tuple(found.tags), dict(found.meta)) == (tuple(wanted.tags), dict(wanted.meta))
        and (not wanted.checks or any(_is_own_check(each, wanted.id) for each in found.checks))
    )


def _is_own_check(check: CheckHealth, service_id: str) -> bool:
    return check.id == f"service:{service_id}:1"


def is_of(application: str, found: ServiceHealth) -> bool:
    """Whether the agent has registered it, for this application."""
    return found.meta.get(OWNER) == application


def find_stranger(
    application: str, wanted: ConsulService, here: Iterable[ServiceHealth]
) -> ServiceHealth | None:
    """The registration that somebody else made for the same service: its id, or name and port."""
    for found in here:
        is_same = found.id == wanted.id
        is_same = is_same or (found.name, found.port) == (wanted.name, wanted.port or -1)
        if is_same and not is_of(application, found):
            return found
    return None


def deployment_reason(deployment_id: str, version: str) -> str:
    """Why a service is in maintenance while a deployment replaces it by `version`."""
    return f"{_DEPLOYMENTS}{deployment_id} of {version}"


def drain_reason(by: str, reason: str) -> str:
    """Why a service is in maintenance that a person has drained."""
    return f"{_PERSONS}{by}: {reason}"


def is_deployments(reason: str | None) -> bool:
    """Whether a deployment began the maintenance."""
    return reason is not None and reason.startswith(_DEPLOYMENTS)


def is_ours(reason: str | None) -> bool:
    """Whether the agent began the maintenance, for a deployment or for `agentctl drain`."""
    return is_deployments(reason) or (reason is not None and reason.startswith(_PERSONS))
