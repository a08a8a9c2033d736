"""The host's accounts: who a child process is to be."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from agent.model.errors import Code, NotFound


@dataclass(frozen=True, slots=True)
class Account:
    """groups: every group the account is in, its own `gid` among them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


def find_account(name: str) -> Account:
    """The account called `name`; raises NotFound. Blocks: it may ask LDAP."""
    try:
        return _account(pwd.getpwnam(name))
    except (KeyError, ValueError) as error:
        raise NotFound(
            f"cannot find user {name!r}: this host has no such account",
            code=Code.NOT_FOUND,
            remedy=f"Create it, or correct its name: getent passwd {name}",
        ) from error


def find_group(name: str) -> int:
    """The gid of a group; raises NotFound. Blocks."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError) as error:
        raise NotFound(
            f"cannot find group {name!r}: this host has no such group",
            code=Code.NOT_FOUND,
            remedy=f"Create it, or correct its name: getent group {name}",
        ) from error


def own_account() -> Account:
    """The account that the agent itself runs as; a bare uid will do, as in containers."""
    uid = os.geteuid()
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        groups = tuple(os.getgroups())
        return Account(str(uid), uid, os.getegid(), groups, "/", "/bin/sh")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir or "/",
        shell=entry.pw_shell or "/bin/sh",
    )
