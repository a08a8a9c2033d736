"""The deployment group of this host: from agent.yaml, or from a tag of the instance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from agent.model.errors import AgentError
from agent.model.settings import Settings
from agent.system import durable

_ASK_AGAIN_SECONDS = 60.0
_REGION_IS_KNOWN = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED")


class HostGroup:
    """Knows the group; asks the instance metadata service again once a minute.

    A tag may come minutes after the boot, and may change. The last answer is kept on the disk: a
    host whose metadata service is away stays in its group.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept = settings.state_dir / "deployment-group"
        self._known = settings.group
        self._asked_at = 0.0
        self._lock = asyncio.Lock()

    async def name(self) -> str:
        """The group; raises AgentError where only the metadata service could tell."""
        if not self._settings.group_tag:
            return self._known
        async with self._lock:
            if not self._known or time.monotonic() - self._asked_at > _ASK_AGAIN_SECONDS:
                await self._ask()
            return self._known

    async def region(self) -> str:
        """The region of this instance, "" where the environment says it or nobody can tell."""
        if any(os.environ.get(name) for name in _REGION_IS_KNOWN):
            return ""
        from agent.remote import imds  # imported here: 1 MB that most hosts do without

        with contextlib.suppress(AgentError):
            allow_v1 = self._settings.imds_without_token
            return (await imds.read_identity(allow_v1=allow_v1)).region
        return ""

    async def _ask(self) -> None:
        from agent.remote import imds  # as above

        tag = self._settings.group_tag
        try:
            found = await imds.read_identity(tag=tag, allow_v1=self._settings.imds_without_token)
        except AgentError:
            self._known = self._known or await asyncio.to_thread(_read, self._kept)
            if not self._known:
                raise
        else:
            if found.tag_value != self._known:
                await asyncio.to_thread(_keep, self._kept, found.tag_value)
            self._known = found.tag_value
        self._asked_at = time.monotonic()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _keep(path: Path, group: str) -> None:
    """Best effort: the metadata service can be asked again."""
    with contextlib.suppress(OSError, AgentError):
        durable.write_atomically(path, f"{group}\n".encode())
