"""Who is at the other end of a unix socket, and what that user may do."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import socket
import struct
from collections.abc import Callable

from agent.model.errors import Code, NotPermitted

logger = logging.getLogger(__name__)

_CREDENTIALS = "3i"  # struct ucred: pid, uid, gid
_MOST_OF_A_USER = 32


def read_peer(connection: socket.socket | None) -> tuple[int, int]:
    """Uid and gid of the other end as the kernel knows them: SO_PEERCRED of unix(7)."""
    if connection is None:
        raise NotPermitted("cannot tell who asks", code=Code.NOT_PERMITTED)
    size = struct.calcsize(_CREDENTIALS)
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, gid = struct.unpack(_CREDENTIALS, found)
    return uid, gid


def read_pid(connection: socket.socket | None) -> int:
    """Pid of the process that connected, which may have ended since. 0: none of this namespace."""
    if connection is None:
        return 0
    size = struct.calcsize(_CREDENTIALS)
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack(_CREDENTIALS, found)[0])


def user_name(uid: int) -> str:
    """The name of a user, or "uid 1234" for one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def may_change(uid: int, gid: int, group: str) -> bool:
    """Whether a user may change things: root, the agent's own user, and members of `group`."""
    if uid in (0, os.geteuid()):
        return True
    try:
        wanted = grp.getgrnam(group).gr_gid
        return wanted in os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return False


class Door:
    """Lets connections of a unix socket in, of each user but root and the agent's a few at once.

    Everybody may connect. Without a limit anybody could take all descriptors that this process may
    have, and then no deployment would go on, nor its undo.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._make_protocol = make_protocol
        self._open: dict[int, list[asyncio.BaseTransport]] = {}
        self._is_said = False

    def protocol(self) -> asyncio.Protocol:
        """What a new connection is given first."""
        return _Entering(self)

    def let_in(self, transport: asyncio.Transport) -> None:
        """Hand a connection to its protocol, or close it."""
        uid, _ = read_peer(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            still_open = [each for each in self._open.get(uid, ()) if not each.is_closing()]
            self._open[uid] = still_open
            if len(still_open) >= _MOST_OF_A_USER:
                self._say(uid)
                transport.abort()
                return
            still_open.append(transport)
        protocol = self._make_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _say(self, uid: int) -> None:
        if not self._is_said:
            self._is_said = True
            logger.warning(
                "user %s has %d connections: more are refused", user_name(uid), _MOST_OF_A_USER
            )


class _Entering(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._door.let_in(transport)
