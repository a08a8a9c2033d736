"""From Consul's JSON to our model, and from a registration to Consul's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.model.consul import (
    CheckHealth,
    CheckStatus,
    KvEntry,
    KvSnapshot,
    LocalAgent,
    ServiceCheck,
    ServiceHealth,
    ServiceRegistration,
)

_SERVICE_MAINTENANCE = "_service_maintenance:"
_HOST_MAINTENANCE = "_node_maintenance"
_WORST_LAST = list(CheckStatus)


def registration(wanted: ServiceRegistration) -> dict[str, Any]:
    """The body of PUT /v1/agent/service/register."""
    return {
        "ID": wanted.id,
        "Name": wanted.name,
        "Address": wanted.address,
        "Port": wanted.port,
        "Tags": list(wanted.tags),
        "Meta": dict(wanted.meta),
        "Checks": [
            _check(each, each.id or f"service:{wanted.id}:{number}")
            for number, each in enumerate(wanted.checks, start=1)
        ],
    }


def _check(wanted: ServiceCheck, check_id: str) -> dict[str, Any]:
    given: dict[str, Any] = {
        "CheckID": check_id,
        "Name": wanted.name,
        "Status": wanted.status.value,
        "Notes": wanted.notes,
        "SuccessBeforePassing": wanted.successes,
        "FailuresBeforeCritical": wanted.failures,
    }
    if wanted.http:
        given |= {
            "HTTP": wanted.http,
            "Method": wanted.method,
            "Header": {name: list(values) for name, values in wanted.header.items()},
            "TLSSkipVerify": wanted.skips_tls_verification,
        }
    if wanted.tcp:
        given["TCP"] = wanted.tcp
    if wanted.ttl_seconds:
        given["TTL"] = duration(wanted.ttl_seconds)
    else:
        given["Interval"] = duration(wanted.interval_seconds)
        given["Timeout"] = duration(wanted.timeout_seconds)
    if wanted.deregister_after_seconds:
        given["DeregisterCriticalServiceAfter"] = duration(wanted.deregister_after_seconds)
    return {name: value for name, value in given.items() if value not in ("", 0, {})}


def duration(seconds: float) -> str:
    """As Go reads it: "1500ms"."""
    return f"{round(seconds * 1000)}ms"


def services_here(
    services: Mapping[str, Any], checks: Mapping[str, Any]
) -> dict[str, ServiceHealth]:
    """By id: the answers of /v1/agent/services and /v1/agent/checks."""
    found = list(checks.values())
    return {
        name: _service(
            {**service, "Service": service.get("Service", name)},
            (each for each in found if each.get("ServiceID") in (name, "")),
            host=next((each["Node"] for each in found), ""),
        )
        for name, service in services.items()
    }


def maintenance_of(service_id: str) -> str:
    """The id of the check that Consul makes of a service's maintenance."""
    return f"{_SERVICE_MAINTENANCE}{service_id}"


def checks_of(service_id: str, checks: Mapping[str, Any]) -> list[CheckHealth]:
    """Of the answer of /v1/agent/checks those of one service, without its maintenance."""
    found = [_check_health(each) for each in checks.values() if each.get("ServiceID") == service_id]
    return [each for each in found if not each.id.startswith(_SERVICE_MAINTENANCE)]


def service_health(entries: Iterable[Mapping[str, Any]]) -> tuple[ServiceHealth, ...]:
    """The answer of /v1/health/service/<name>."""
    return tuple(
        _service(
            entry["Service"],
            entry["Checks"],
            host=entry["Node"]["Node"],
            host_address=entry["Node"].get("Address", ""),
        )
        for entry in entries
    )


def _service(
    service: Mapping[str, Any],
    checks: Iterable[Mapping[str, Any]],
    *,
    host: str,
    host_address: str = "",
) -> ServiceHealth:
    found = tuple(_check_health(each) for each in checks)
    blocks = [
        each
        for each in found
        if each.id == _HOST_MAINTENANCE or each.id.startswith(_SERVICE_MAINTENANCE)
    ]
    worst = max((_WORST_LAST.index(each.status) for each in found), default=0)
    return ServiceHealth(
        id=service["ID"],
        name=service["Service"],
        host=host,
        address=service.get("Address") or host_address,
        port=service.get("Port") or 0,
        tags=tuple(service.get("Tags") or ()),
        meta=dict(service.get("Meta") or {}),
        checks=tuple(each for each in found if each not in blocks),
        status=CheckStatus.MAINTENANCE if blocks else _WORST_LAST[worst],
        # a host's maintenance has a reason too, which explains more than the service's
        maintenance=blocks[0].notes if blocks else None,
    )


def _check_health(check: Mapping[str, Any]) -> CheckHealth:
    return CheckHealth(
        id=check["CheckID"],
        name=check.get("Name", ""),
        status=CheckStatus(check["Status"]),
        output=check.get("Output", ""),
        notes=check.get("Notes", ""),
    )


def local_agent(given: Mapping[str, Any]) -> LocalAgent:
    """The answer of /v1/agent/self."""
    config, running = given["Config"], given.get("DebugConfig") or {}
    return LocalAgent(
        host=config["NodeName"],
        datacenter=config["Datacenter"],
        version=config["Version"],
        is_server=bool(config["Server"]),
        keeps=bool(running["DataDir"]) if "DataDir" in running else None,
    )


def kv_entry(entry: Mapping[str, Any]) -> KvEntry:
    """One key as python-consul gives it, its value decoded."""
    return KvEntry(
        key=entry["Key"],
        value=entry["Value"] or b"",
        modify_index=entry["ModifyIndex"],
        lock_index=entry.get("LockIndex", 0),
        session=entry.get("Session", ""),
    )


def kv_snapshot(prefix: str, index: int, entries: Iterable[Mapping[str, Any]]) -> KvSnapshot:
    """The keys below prefix, which ends in "/"; no folders are among them."""
    values = {entry["Key"].removeprefix(prefix): entry["Value"] or b"" for entry in entries}
    return KvSnapshot(prefix, index, values)
