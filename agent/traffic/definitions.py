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
            "SELECT path, action FROM actions WHERE path > ? AND path < ? AND kind <> 'dir'"
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

    Only of those in JSON, and nothing of a file that cannot be read: Consul complains of it.
    """
    found: dict[str, None] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = json.loads(file.read(_MOST_BYTES))
        except (OSError, ValueError):
            continue
        for service in _services(content):
            given = {str(key).casefold(): value for key, value in service.items()}
            service_id = given.get("id") or given.get("name")
            if isinstance(service_id, str) and service_id:
                found[service_id] = None
    return tuple(found)


def _services(content: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(content, dict):
        return
    for key in ("service", "services"):
        given = content.get(key)
        for each in given if isinstance(given, list) else [given]:
            if isinstance(each, dict):
                yield each
