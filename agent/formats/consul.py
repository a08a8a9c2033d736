"""The `consul` key of an entry of `services`: what is registered, and how Consul looks after it."""

from __future__ import annotations

from agent.formats import findings, quantities, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import ConsulCheck, ConsulService

_KINDS = ("http", "tcp", "ttl")
_PAUSES = ("interval", "timeout")


def build_consul(path: Path, value: object, found: Findings) -> ConsulService | None:
    """What the key at `path` says; None where there is none. The schema complains of the rest."""
    if not isinstance(value, dict):
        return None
    name, port = findings.text(value.get("name")), _port(value.get("port"))
    address = findings.text(value.get("address"))
    host = f"[{address}]" if ":" in address else address or "127.0.0.1"
    return ConsulService(
        name=name,
        id=findings.text(value.get("id")) or name,
        address=address,
        port=port,
        tags=findings.texts(value.get("tags")),
        check=_check((*path, "check"), value.get("check"), f"{host}:{port}", found),
        **quantities.durations(value, "drain", "within"),
    )


def _check(path: Path, value: object, place: str, found: Findings) -> ConsulCheck | None:
    """place: the address and port of the service, which a path is below."""
    if not isinstance(value, dict):
        return None
    kinds = [key for key in _KINDS if key in value]
    if not kinds:
        found.error(path, "has neither http nor tcp nor ttl", "write {http: /status}", at_key=True)
    elif len(kinds) > 1:
        given = wording.listed(kinds, "and")
        message = f"is of one kind only, and {given} are given"
        found.error(path, message, "write one of them", at_key=True)
    http = findings.text(value.get("http"))
    if http.startswith("/"):
        if place.endswith(":0"):
            message = "is a path, and the service has no port"
            found.error((*path, "http"), message, "add port beside check, or write a URL")
        http = f"http://{place}{http}"
    if "ttl" in kinds:
        for key in _PAUSES:
            if key in value:
                found.error((*path, key), "has no meaning beside ttl", "take it out", at_key=True)
    return ConsulCheck(
        http=http,
        tcp=findings.text(value.get("tcp")),
        **quantities.durations(value, "ttl", *_PAUSES),
    )


def _port(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
