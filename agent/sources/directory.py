"""A folder as source: a bundle dropped into it is the desired revision."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

from agent.model.deployment import Deployment, Revision
from agent.model.errors import Code, TransientError
from agent.model.settings import SourceSettings

_SUFFIX = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
_SETTLE_SECONDS = 1.0


class DirectorySource:
    """The newest bundle of the folder, by when it was put there.

    "Newest" is by ctime, which cp, mv and ln all set, so that an older build dropped in again
    is the newest. A file counts once it has not changed for a second: a slow copy is waited for.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._path = Path(settings.path)

    def __str__(self) -> str:
        return f"directory {self._path}"

    def desired(self) -> list[Revision]:
        """The desired revision of each application; blocks. Raises TransientError."""
        try:
            if self._settings.application:
                found = [_newest(self._path, self._settings.application, self._settings.group)]
            else:
                found = [
                    _newest(Path(each.path), each.name, self._settings.group)
                    for each in os.scandir(self._path)
                    if each.is_dir() and not each.name.startswith(".")
                ]
        except OSError as error:
            raise TransientError(
                f"cannot read the source folder {self._path}: {error.strerror}",
                code=Code.SOURCE_UNAVAILABLE,
                remedy=f"Make it (mkdir -p {self._path}), or correct sources: in agent.yaml",
            ) from error
        return [each for each in found if each is not None]

    async def report(self, deployment: Deployment) -> None:
        """A folder is told nothing: the outcome is in the agent's state and log."""


def _newest(folder: Path, application: str, group: str) -> Revision | None:
    newest: tuple[int, os.DirEntry[str]] | None = None
    for entry in os.scandir(folder):
        if not _SUFFIX.search(entry.name) or entry.name.startswith("."):
            continue
        status = entry.stat()
        if stat.S_ISREG(status.st_mode) and (newest is None or status.st_ctime_ns > newest[0]):
            newest = (status.st_ctime_ns, entry)
    if newest is None or time.time() - newest[0] / 1e9 < _SETTLE_SECONDS:
        return None
    status = newest[1].stat()
    return Revision(
        application=application,
        group=group,
        version=version_of(newest[1].name, application),
        bundle=newest[1].path,
        identity=f"{newest[1].path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}",
        serial=status.st_ctime_ns,
    )


def version_of(name: str, application: str) -> str:
    """The version that a file name tells: go-service-1.214.zip of go-service is 1.214."""
    stem = _SUFFIX.sub("", name)
    for separator in "-_":
        if stem.startswith(application + separator):
            return stem[len(application) + 1 :]
    return stem
