"""A folder as source: a bundle dropped into it is the desired revision."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.model.deployment import Deployment, Revision
from agent.model.errors import Code, TransientError
from agent.model.settings import SourceSettings
from agent.sources import sidecar
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys

logger = logging.getLogger(__name__)

_SUFFIX = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
_SETTLE_SECONDS = 1.0


class DirectorySource:
    """The newest bundle of the folder, by when it was put there.

    "Newest" is by ctime, which cp, mv and ln all set, so that an older build dropped in again
    is the newest. A file counts once it has not changed for a second: a slow copy is waited for.
    One from the future counts, too: the clock was set back, and catches up who knows when.
    """

    def __init__(self, settings: SourceSettings, keys: Keys, group: HostGroup) -> None:
        self.poll_seconds = settings.poll_seconds
        self.longest_pause_seconds = self.poll_seconds
        self._settings = settings
        self._keys = keys
        self._host_group = group
        self._path = Path(settings.path)
        self._known: dict[str, Revision] = {}
        self._in_future: dict[str, str] = {}
        # a folder that hangs takes this thread, and none of those that deployments need
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="source")

    def __str__(self) -> str:
        return f"directory {self._path}"

    async def desired(self) -> list[Revision]:
        """The desired revision of each application. Raises AgentError."""
        group = self._settings.group or await self._host_group.name()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._look, group)

    def _look(self, group: str) -> list[Revision]:
        try:
            if self._settings.application:
                found = [_newest(self._path, self._settings.application, group)]
            else:
                found = [
                    _newest(Path(each.path), each.name, group)
                    for each in os.scandir(self._path)
                    if each.is_dir() and not each.name.startswith(".")
                ]
        except OSError as error:
            raise TransientError(
                f"cannot read the source folder {self._path}: {error.strerror}",
                code=Code.SOURCE_UNAVAILABLE,
                remedy=f"Make it (mkdir -p {self._path}), or correct sources: in agent.yaml",
            ) from error
        desired = [each for each in found if each is not None]
        for each in desired:
            self._note_future(each)
        return [self._checked(each) for each in desired]

    def _note_future(self, revision: Revision) -> None:
        """Say it once of each bundle that is from the future, as it outdoes what comes now."""
        seconds = revision.serial / 1e9 - time.time()
        if (
            seconds < _SETTLE_SECONDS
            or self._in_future.get(revision.application) == revision.bundle
        ):
            return
        self._in_future[revision.application] = revision.bundle
        logger.warning(
            "%s was put there %.0f s in the future: was the clock set back? It counts as newer"
            " than all that is put there until then",
            revision.bundle,
            seconds,
        )

    def _checked(self, revision: Revision) -> Revision:
        """With its signature checked, once for each bundle: it takes as long as to read it."""
        known = self._known.get(revision.application)
        if known is None or known.identity != revision.identity:
            known = sidecar.checked(revision, self._keys)
            self._known[revision.application] = known
        return known

    async def report(self, deployment: Deployment) -> None:
        """A folder is told nothing: the outcome is in the agent's state and log."""

    async def close(self) -> None:
        """Ask no more; a question that hangs is left behind."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _newest(folder: Path, application: str, group: str) -> Revision | None:
    newest: tuple[os.stat_result, os.DirEntry[str]] | None = None
    for entry in os.scandir(folder):
        if not _SUFFIX.search(entry.name) or entry.name.startswith("."):
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue  # removed just now, or a link to nothing
        if stat.S_ISREG(status.st_mode) and (
            newest is None or status.st_ctime_ns > newest[0].st_ctime_ns
        ):
            newest = (status, entry)
    if newest is None:
        return None
    status, entry = newest
    if abs(time.time() - status.st_ctime) < _SETTLE_SECONDS:
        return None
    return Revision(
        application=application,
        group=group,
        version=version_of(entry.name, application),
        bundle=entry.path,
        identity=f"{entry.path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}",
        serial=status.st_ctime_ns,
    )


def version_of(name: str, application: str) -> str:
    """The version that a file name tells: go-service-1.214.zip of go-service is 1.214."""
    stem = _SUFFIX.sub("", name)
    for separator in "-_":
        if stem.startswith(application + separator):
            return stem[len(application) + 1 :]
    return stem
