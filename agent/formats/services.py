"""The `services` section of an appspec: units, their status endpoint, Consul, environment."""

from __future__ import annotations

import urllib.parse
from typing import Any

from agent.formats import consul, findings, quantities, service_environment, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import EnvironmentFile, Match, ServedBy, Service, StatusCheck


def build_services(value: object, found: Findings) -> tuple[Service, ...]:
    """The section's entries, in the order of the file."""
    services = []
    seen: dict[str, int] = {}
    ids: set[str] = set()
    files: set[str] = set()
    for index, entry in findings.entries(value):
        path: Path = ("services", index)
        unit = findings.text(entry.get("unit"))
        _check_unit((*path, "unit"), unit, seen, found)
        seen.setdefault(unit, index)
        status = _status((*path, "status"), entry.get("status"), found)
        if status is not None:
            _check_served_by((*path, "status"), unit, status, found)
        registered = consul.build_consul((*path, "consul"), entry.get("consul"), found)
        if registered is not None:
            _check_id((*path, "consul"), registered.id, ids, found)
        environment = service_environment.build_environment(
            (*path, "environment"), entry.get("environment"), unit, found
        )
        if environment is not None:
            _check_file((*path, "environment"), environment, files, found)
        services.append(
            Service(
                unit=unit,
                status=status,
                consul=registered,
                environment=environment,
                **quantities.durations(entry, "stop_timeout", "start_timeout"),
            )
        )
    return tuple(services)


def _check_unit(path: Path, unit: str, seen: dict[str, int], found: Findings) -> None:
    """seen: the index of the entry, by the units of the entries before."""
    if unit and unit in seen:
        message = f"{wording.name(unit)} is there twice, in entries {seen[unit] + 1} and"
        found.error(path, f"{message} {int(path[1]) + 1}", "make one entry of them")
    if "@." in unit:
        found.error(
            path,
            f"{wording.name(unit)} is a template, which cannot be started",
            f"name what runs: {unit.replace('@.', '@1.')}",
        )


def _check_id(path: Path, service_id: str, ids: set[str], found: Findings) -> None:
    """Two services of one id would be one in Consul."""
    if service_id and service_id in ids:
        message = f"{wording.name(service_id)} is there twice"
        found.error((*path, "name"), message, "give one of them another id")
    ids.add(service_id)


def _check_file(path: Path, environment: EnvironmentFile, files: set[str], found: Findings) -> None:
    """Two prefixes cannot be one file."""
    if environment.path and environment.path in files:
        message = f"{wording.name(environment.path)} is there twice"
        found.error((*path, "file"), message, "give each service a file of its own")
    files.add(environment.path)


def _status(path: Path, value: object, found: Findings) -> StatusCheck | None:
    if not isinstance(value, dict):
        return None
    given: dict[str, Any] = quantities.durations(value, "within", "stable_for")
    version = value.get("version")
    if version is not None:
        given["version"] = version if isinstance(version, str) and version != "off" else ""
    match = findings.text(value.get("match"))
    if match in set(Match):
        given["match"] = Match(match)
    served_by = findings.text(value.get("served_by"))
    if served_by in set(ServedBy):
        given["served_by"] = ServedBy(served_by)
    url = findings.text(value.get("url"))
    fault = _url_fault(url)
    if url and fault:
        found.error((*path, "url"), f"{fault}, is {wording.shown(url)}")
    healthy = tuple(
        (pointer, found.document.written((*path, "healthy", pointer)) or str(expected))
        for pointer, expected in findings.mapping(value.get("healthy")).items()
    )
    return StatusCheck(url=url, healthy=healthy, **given)


def _check_served_by(path: Path, unit: str, status: StatusCheck, found: Findings) -> None:
    """A unit without processes of its own cannot answer."""
    if status.served_by is ServedBy.ANY or not unit or unit.endswith((".service", ".slice")):
        return
    message = f"{wording.name(unit)} has no processes, so no answer can come from it"
    found.error(path, message, "put status into the entry of the service, or add served_by: any")


def _url_fault(url: str) -> str:
    """What is wrong with a URL that the agent is to ask, or ""."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return "must be a valid URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be an http:// or https:// URL with a host"
    if port == 0 or not url.isprintable() or " " in url:
        return "must be a valid URL"
    return ""
