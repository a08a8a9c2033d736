"""Who is at the other end of a unix socket, and what that user may do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct

from agent.model.errors import Code, NotPermitted

_CREDENTIALS = "3i"  # struct ucred: pid, uid, gid


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
