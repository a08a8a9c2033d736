"""The sources: can the agent reach them, and who else may put a revision there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.doctor import finding, stores, writers
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.settings import SourceSettings, SourceType

_SHOWN_FOLDERS = 200


def look(host: Host) -> Iterator[Finding]:
    """Each of agent.yaml."""
    if not host.settings.sources:
        yield finding.ok("none is configured: only agentctl deploy brings revisions")
    for source in host.settings.sources:
        if source.type is SourceType.DIRECTORY:
            yield from _look_at_folder(source, host)
        else:
            yield from stores.look_at_store(source, host)
    if any(source.type is not SourceType.DIRECTORY for source in host.settings.sources):
        yield from stores.look_at_keys(host)


def _look_at_folder(source: SourceSettings, host: Host) -> Iterator[Finding]:
    path = Path(source.path)
    try:
        if not path.is_dir():
            what = "is no folder" if path.exists() else "is not there"
            yield finding.problem(
                f"{path} {what}", f"Make it (mkdir -p {path}), or correct sources: in {host.config}"
            )
            return
        folders = [path, *([] if source.application else _applications(path))]
        everybody: list[Path] = []
        others: dict[str, None] = {}
        for folder in folders:
            for each in writers.find_writers(folder, ()):
                if each.is_everybody:
                    everybody.append(each.place)
                else:
                    others[str(each)] = None
    except PermissionError as error:
        if host.is_root:
            yield finding.problem(f"{error.filename} may not be read", "See: namei -l " + str(path))
        else:
            yield finding.unknown(f"{error.filename} may not be read by this user")
        return
    except OSError as error:
        yield finding.problem(f"{path}: {error.strerror}", f"Correct sources: in {host.config}")
        return
    rights = "as root" if host.agent_uid() == 0 else "as the agent's user"
    for place in dict.fromkeys(everybody):
        yield finding.problem(
            f"everybody may put a revision into {path}, and so run hooks {rights}",
            f"Let only those write who may deploy: chmod o-w {place}",
        )
    if not everybody:
        who = " and ".join(others) or "only root"
        yield finding.ok(f"{path} can be read; {who} may put revisions there")


def _applications(path: Path) -> list[Path]:
    found = (Path(each.path) for each in os.scandir(path) if each.is_dir())
    return sorted(each for each in found if not each.name.startswith("."))[:_SHOWN_FOLDERS]
