"""Listening on a unix socket, and again where somebody removed it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from agent.model.errors import AgentError, Code

logger = logging.getLogger(__name__)


class UnixSocket:
    """A path on which connections are taken. Whoever removes it leaves a server nobody can reach.

    make_protocol: called for each connection. Nobody else may listen at the path meanwhile.
    """

    def __init__(self, path: Path, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._path = path
        self._make_protocol = make_protocol
        self._server: asyncio.Server | None = None
        self._mine: tuple[int, int] | None = None
        self._problem = ""

    async def listen(self) -> None:
        """Take connections; what lies at the path is replaced. Raises AgentError."""
        try:
            await asyncio.to_thread(self._make_way)
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(self._make_protocol, self._path)
            self.close()  # connections that were taken stay
            self._server = server
            # who may do what is decided by the peer's credentials
            await asyncio.to_thread(self._path.chmod, 0o666)
            self._mine = await asyncio.to_thread(_identity, self._path)
        except OSError as error:
            raise AgentError(
                f"cannot listen on {self._path}: {error.strerror or error}",
                code=Code.CONFIG_INVALID,
                remedy="Set run_dir in agent.yaml to a folder that the agent may write to",
            ) from error

    async def ensure_reachable(self) -> None:
        """Listen again where the path is not this socket any more. What fails is logged once."""
        if await asyncio.to_thread(_identity, self._path) == self._mine:
            return
        try:
            await self.listen()
        except AgentError as error:
            if error.message != self._problem:
                logger.error("%s; the socket there was removed", error.message)
            self._problem = error.message
            return
        self._problem = ""
        logger.warning("%s was removed by somebody: listening there again", self._path)

    def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    def _make_way(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies there."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
