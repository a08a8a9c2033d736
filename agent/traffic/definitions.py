"""Service definitions that a bundle installs into Consul's configuration directory.

https://developer.hashicorp.com/consul/docs/services/configuration/services-configuration-reference
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.files import planfile
from agent.files.choose import Action
from agent.formats import hcl
from agent.model.installed import InstalledFile

# Consul reads these, and only directly in the folder
_SUFFIXES = (".json", ".hcl")
_CHANGING = (Action.ADD, Action.REPLACE, Action.REMOVE)
_ABSENT = (Action.REMOVE, Action.RETAIN, Action.CONFLICT)
_MOST_BYTES = 1 << 20


def find_installed(files: Iterable[InstalledFile], folder: str) -> tuple[str, ...]:
    """Those of a committed revision; blocks."""
    inside = os.path.realpath(folder)
    return tuple(
        each.path for each in files if each.kind != "dir" and _is_definition(each.path, inside)
    )


def find_planned(plan_path: Path, folder: str) -> tuple[tuple[str, ...], bool]:
    """Those of the revision that a plan installs, and whether the plan changes any; blocks.

    Raises AgentError. Without a plan there are none.
    """
    if not plan_path.exists():
        return (), False
    inside = os.path.realpath(folder)
    with planfile.opened(plan_path) as plan:
        rows = plan.execute(
            "SELECT path, action FROM planned WHERE path > ? AND path < ? AND kind <> 'dir'"
            " ORDER BY path",
            planfile.below(inside),
        ).fetchall()
    found = [(path, action) for path, action in rows if _is_definition(path, inside)]
    wanted = tuple(path for path, action in found if action not in _ABSENT)
    return wanted, any(action in _CHANGING for _, action in found)


def _is_definition(path: str, folder: str) -> bool:
    return os.path.dirname(path) == folder and path.endswith(_SUFFIXES)


def read_ids(paths: Iterable[str]) -> tuple[str, ...]:
    """The ids of the services that are defined in files; blocks.

    Nothing of a file that cannot be read: Consul complains of it, or find_unread tells of it.
    """
    found: dict[str, None] = {}
    for path in paths:
        for service in _services(_read(path) or {}):
            given = {str(key).casefold(): value for key, value in service.items()}
            service_id = _last(given.get("id")) or _last(given.get("name"))
            if isinstance(service_id, str) and service_id:
                found[service_id] = None
    return tuple(found)


def find_unread(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the files whose services are not known; blocks."""
    return tuple(each for each in paths if os.path.exists(each) and _read(each) is None)


def _read(path: str) -> dict[str, Any] | None:
    """What is in a file, in HCL each key with a list of its values; None where it is neither."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES).decode()
        content = hcl.parse_hcl(text) if path.endswith(".hcl") else json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _services(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, given in content.items():  # Consul minds no capitals
        if str(key).casefold() in ("service", "services"):
            yield from _objects(given)


def _objects(given: Any) -> Iterator[dict[str, Any]]:
    """An object, or all of a list, which may have lists in it: `services = [{…}]` of HCL."""
    if isinstance(given, dict):
        yield given
    elif isinstance(given, list):
        for each in given:
            yield from _objects(each)


def _last(value: Any) -> Any:
    """Of a key that is repeated the last value counts."""
    return value[-1] if isinstance(value, list) and value else value
