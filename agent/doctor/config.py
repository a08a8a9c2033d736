"""agent.yaml and conf.d: readable, valid, and nobody else's to change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.doctor import finding, writers
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.formats import settings as settings_format
from agent.model.errors import AgentError

_SECRET = ("token", "secret", "password")


def look(host: Host) -> Iterator[Finding]:
    """The files as a whole first, then each."""
    try:
        files = [each for each in settings_format.config_files(host.config) if each.exists()]
    except (OSError, AgentError) as error:
        yield finding.unknown(f"{host.config}: {getattr(error, 'strerror', error)}")
        return
    hidden = [each for each in files if not os.access(each, os.R_OK)]
    fault = host.config_error
    if hidden:
        yield finding.unknown(f"{hidden[0]} may not be read: what follows assumes the defaults")
    elif fault is not None:
        text = f"{fault.message}; what follows assumes the defaults"
        yield finding.problem(text, fault.remedy)
        for line in fault.details:
            yield finding.problem(line, "")
    elif files:
        yield finding.ok(f"{', '.join(map(str, files))}: valid")
    else:
        yield finding.ok(f"there is no {host.config}: the defaults hold")
    for file in files:
        yield from _look_at_file(file, host)


def _look_at_file(file: Path, host: Host) -> Iterator[Finding]:
    found = writers.find_writers(file, (host.agent_uid(),))
    if found:
        who = " and ".join(map(str, found))
        yield finding.problem(
            f"{who} may change {file}, and so what is deployed here",
            f"Give it to root alone: chown root: {found[0].place}; chmod go-w {found[0].place}",
        )
    mode = file.stat().st_mode
    if stat.S_ISREG(mode) and mode & stat.S_IROTH and _secrets(file):
        yield finding.problem(
            f"everybody may read {file}, which holds {', '.join(_secrets(file))}",
            f"Let root alone read it: chmod 0600 {file}",
        )


def _secrets(file: Path) -> list[str]:
    """Keys that sound like a secret and have a text, at any depth; a file's name is none."""
    try:
        value, _ = settings_format.read_config(file)
    except AgentError:
        return []
    found: dict[str, None] = {}
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each.values())
            for key, text in each.items():
                if isinstance(text, str) and _is_secret(str(key)):
                    found[str(key)] = None
        elif isinstance(each, list):
            waiting.extend(each)
    return list(found)


def _is_secret(key: str) -> bool:
    return not key.endswith("_file") and any(word in key for word in _SECRET)
