"""The `sources` section of agent.yaml: what each type needs, and what it does not know."""

from __future__ import annotations

from urllib.parse import urlsplit

from agent.formats import findings, wording
from agent.formats.findings import Findings
from agent.model.settings import SourceType

_KEYS: dict[str, set[str]] = {
    SourceType.DIRECTORY: {"path"},
    SourceType.HTTP: {"url", "token_file"},
    SourceType.S3: {"url", "region", "endpoint", "path_style", "profile", "role_arn"},
}
_NEEDED: dict[str, tuple[str, ...]] = {
    SourceType.DIRECTORY: ("path",),
    SourceType.HTTP: ("url", "application"),
    SourceType.S3: ("url", "application"),
}
_SCHEMES: dict[str, tuple[str, ...]] = {
    SourceType.HTTP: ("http://", "https://"),
    SourceType.S3: ("s3://",),
}


def check_sources(found: Findings) -> None:
    """Add what the schema cannot say: it has one shape for all types."""
    value = found.document.value
    if not isinstance(value, dict):
        return
    for index, entry in findings.entries(value.get("sources")):
        kind = findings.text(entry.get("type"))
        if kind in _KEYS:
            _check(("sources", index), kind, entry, found)


def _check(
    path: tuple[str | int, ...], kind: str, entry: dict[str, object], found: Findings
) -> None:
    for key in _NEEDED[kind]:
        if key not in entry:
            found.error(path, f"has no {key}, which a source of type {kind} needs")
    everywhere = set().union(*_KEYS.values())
    for key in entry:
        if key in everywhere - _KEYS[kind]:
            types = wording.listed(sorted(each for each in _KEYS if key in _KEYS[each]))
            message = f"is not known to a source of type {kind}, only to {types}"
            found.error((*path, key), message, at_key=True)
    url = findings.text(entry.get("url"))
    schemes = _SCHEMES.get(kind, ())
    if "token_file" in entry and url.startswith("http://") and not _is_loopback(url):
        found.error((*path, "url"), "would send the token in the open", "use https://")
    if url and schemes and not url.startswith(schemes):
        must = wording.listed(list(schemes))
        found.error(
            (*path, "url"), f"must begin with {must} for type {kind}, is {wording.shown(url)}"
        )


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
