"""The appspec's `permissions`: which of them applies to a path, and what it sets there.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'permissions' section", and the AWS
agent's behaviour where the guide says nothing: a pattern is matched with names directly below the
object, the object itself is only meant when it is a file, the base entries of an ACL are filled in.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.files import planfile
from agent.model.appspec import AclEntry, Permission
from agent.system import process
from agent.system.process import Captured

Capture = Callable[[Sequence[str]], Captured]

EVERYTHING = "**"
_KINDS = {"file": "file", "directory": "dir"}


def save_rules(plan: sqlite3.Connection, permissions: Sequence[Permission]) -> None:
    """Make the temporary table `rules`, a row for each permission, and the functions for ACLs.

    Owners and groups become ids here; those that the host does not have are problems.
    """
    plan.execute(
        "CREATE TEMP TABLE rules (rule INTEGER PRIMARY KEY, mode INTEGER, uid INTEGER,"
        " gid INTEGER, has_acl INTEGER NOT NULL, context TEXT)"
    )
    for number, each in enumerate(permissions):
        plan.execute(
            "INSERT INTO rules VALUES (?, ?, ?, ?, ?, ?)",
            (
                number,
                each.mode,
                _owner_id(plan, each),
                _group_id(plan, each),
                bool(each.acls),
                _context(each),
            ),
        )

    @functools.cache
    def text(rule: int, mode: int, kind: str) -> str:
        return acl_text(permissions[rule].acls, mode, kind)

    plan.create_function("acl_text", 3, text, deterministic=True)
    plan.create_function(
        "acl_mode", 2, lambda rule, mode: acl_mode(permissions[rule].acls, mode), deterministic=True
    )


def _owner_id(plan: sqlite3.Connection, permission: Permission) -> int | None:
    if not permission.owner:
        return None
    try:
        uid = pwd.getpwnam(permission.owner).pw_uid
    except KeyError:
        text = f"permissions of {permission.object}: this host has no user {permission.owner!r}"
        planfile.add_finding(plan, "problem", text, path=permission.object)
        return None
    if os.geteuid() not in (0, uid):
        text = (
            f"permissions of {permission.object}: only root can give files to"
            f" {permission.owner!r}, and the agent does not run as root"
        )
        planfile.add_finding(plan, "problem", text, path=permission.object)
    return uid


def _group_id(plan: sqlite3.Connection, permission: Permission) -> int | None:
    if not permission.group:
        return None
    try:
        gid = grp.getgrnam(permission.group).gr_gid
    except KeyError:
        text = f"permissions of {permission.object}: this host has no group {permission.group!r}"
        planfile.add_finding(plan, "problem", text, path=permission.object)
        return None
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        text = (
            f"permissions of {permission.object}: the agent's user is not in group"
            f" {permission.group!r}, and only root can give files to it then"
        )
        planfile.add_finding(plan, "problem", text, path=permission.object)
    return gid


def _context(permission: Permission) -> str | None:
    """Arguments for semanage fcontext. SELinux names have no blanks."""
    if not permission.context:
        return None
    values = dict(permission.context)
    words = ["-t", values.get("type", "")]
    for option, key in (("-s", "name"), ("-r", "range")):
        if values.get(key):
            words += [option, values[key]]
    return " ".join(words)


# which permission applies


def rule_of(permissions: Sequence[Permission]) -> tuple[str, dict[str, str]]:
    """SQL for the number of the permission that applies to (named, kind), and its parameters.

    named: the path as the appspec's author would write it, with the symlinks that lead to it.
    """
    values: dict[str, str] = {}
    cases = [
        f"WHEN {_condition(number, each, values)} THEN {number}"
        for number, each in enumerate(permissions)
    ]
    return (f"CASE {' '.join(cases)} END" if cases else "NULL"), values


def times_named(permissions: Sequence[Permission]) -> tuple[str, dict[str, str]]:
    """SQL for how many permissions apply to (named, kind), and its parameters."""
    values: dict[str, str] = {}
    parts = [f"({_condition(n, each, values)})" for n, each in enumerate(permissions)]
    return " + ".join(parts) or "0", values


def _condition(number: int, permission: Permission, values: dict[str, str]) -> str:
    prefix = f"rule{number}_"
    path = os.path.normpath(permission.object)
    first, beyond = planfile.below(path)
    values.update({f"{prefix}object": path, f"{prefix}first": first, f"{prefix}beyond": beyond})
    name = f"substr(named, {len(first) + 1})"
    inside = [f"named >= :{prefix}first AND named < :{prefix}beyond"]
    if permission.pattern != EVERYTHING:
        values[f"{prefix}pattern"] = _glob(permission.pattern)
        inside.append(f"instr({name}, '/') = 0 AND {name} GLOB :{prefix}pattern")
    for index, except_for in enumerate(permission.excludes):
        values[f"{prefix}except{index}"] = _glob(except_for)
        inside.append(f"NOT (instr({name}, '/') = 0 AND {name} GLOB :{prefix}except{index})")
    kinds = ", ".join(f"'{_KINDS[each]}'" for each in permission.types)
    return (
        f"kind IN ({kinds}) AND (named = :{prefix}object AND kind = 'file'"
        f" OR {' AND '.join(inside)})"
    )


def _glob(pattern: str) -> str:
    """In a permission's pattern only `*` is special; SQLite's GLOB has `?` and `[` too."""
    return "".join(f"[{c}]" if c in "?[" else c for c in pattern)


def check_rules(plan: sqlite3.Connection, permissions: Sequence[Permission]) -> None:
    """Save problems for permissions that cannot be meant, warnings for those that meet nothing."""
    if not permissions:
        return
    used = {row[0] for row in plan.execute("SELECT DISTINCT rule FROM actions")}
    for number, each in enumerate(permissions):
        path = os.path.normpath(each.object)
        one = plan.execute(
            "SELECT 1 FROM actions WHERE path = ? AND kind = 'file' AND rule = ?", (path, number)
        ).fetchone()
        if one and (each.pattern != EVERYTHING or each.excludes):
            text = f"permissions of {path}: it is a file, so it can have no pattern and no except"
            planfile.add_finding(plan, "problem", text, path=path)
        if any(entry.default for entry in each.acls):
            file = plan.execute(
                "SELECT path FROM actions WHERE rule = ? AND kind = 'file' LIMIT 1", (number,)
            ).fetchone()
            if file:
                text = (
                    f"permissions of {path}: a default ACL is for folders, and {file[0]} is a file;"
                    " set type to [directory]"
                )
                planfile.add_finding(plan, "problem", text, path=path)
        if number not in used:
            text = f"permissions of {path}: nothing that this revision installs is meant by it"
            planfile.add_finding(plan, "warning", text, path=path)


# ACLs


def acl_text(entries: Sequence[AclEntry], mode: int, kind: str) -> str:
    """The whole ACL for setfacl: the entries, and the base entries as `mode` has them."""
    base = _filled([entry for entry in entries if not entry.default], mode)
    default = [entry for entry in entries if entry.default]
    if default and kind == "dir":
        base += [f"default:{each}" for each in _filled(default, mode)]
    return ",".join(base)


def _filled(entries: Sequence[AclEntry], mode: int) -> list[str]:
    words = [f"{entry.kind}:{entry.name}:{entry.perms}" for entry in entries]
    there = {(entry.kind, entry.name) for entry in entries}
    for kind, bits in (("user", mode >> 6), ("group", mode >> 3), ("other", mode)):
        if (kind, "") not in there:
            words.append(f"{kind}::{_letters(bits)}")
    if any(entry.name for entry in entries) and ("mask", "") not in there:
        group = [entry.perms for entry in entries if (entry.kind, entry.name) == ("group", "")]
        words.append(f"mask::{group[0] if group else _letters(mode >> 3)}")
    return words


def _letters(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


def acl_mode(entries: Sequence[AclEntry], mode: int) -> int:
    """What the mode becomes: its group bits then show the mask."""
    for entry in entries:
        if entry.kind == "mask" and not entry.default:
            bits = sum(
                bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in entry.perms
            )
            return mode & ~0o070 | bits << 3
    return mode


def save_acls(plan: sqlite3.Connection, scratch: Path, capture: Capture) -> None:
    """Let setfacl make each ACL once, on a scratch file, and keep what the kernel made of it."""
    wanted = plan.execute(
        "SELECT DISTINCT acl, kind FROM actions WHERE acl IS NOT NULL ORDER BY acl, kind"
    ).fetchall()
    for acl, kind in wanted:
        probe = scratch / "acl-probe"
        if kind == "dir":
            probe.mkdir()
        else:
            probe.touch()
        try:
            answer = capture(("setfacl", "--set", acl, "--", str(probe)))
            if answer.code == 0:
                plan.execute("INSERT INTO acls VALUES (?, ?, ?, ?)", (acl, kind, *read_acls(probe)))
        finally:
            probe.rmdir() if kind == "dir" else probe.unlink()
        if answer.code == 127:
            text = "acls: this host has no setfacl; install it with: apt install acl"
            planfile.add_finding(plan, "problem", text)
            return
        if answer.code != 0:
            text = f"acls: cannot set {acl}: {answer.err or answer.out}"
            planfile.add_finding(plan, "problem", text)


def read_acls(path: Path | str) -> tuple[bytes | None, bytes | None]:
    """Access and default ACL as the kernel keeps them; None where there is none."""
    found: list[bytes | None] = []
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        try:
            found.append(os.getxattr(path, name, follow_symlinks=False))
        except OSError:  # no ACL, or a file system without ACLs
            found.append(None)
    return found[0], found[1]


def check_context_tools(
    plan: sqlite3.Connection, capture: Capture = process.capture_blocking
) -> None:
    """A problem for an SELinux context where the host cannot set one."""
    if not plan.execute("SELECT 1 FROM actions WHERE context IS NOT NULL").fetchone():
        return
    for argv in (("semanage", "--help"), ("restorecon", "-n", "/")):
        if capture(argv).code == 127:
            text = (
                f"context: this host has no {argv[0]}; install it with: apt install"
                " policycoreutils policycoreutils-python-utils"
            )
            planfile.add_finding(plan, "problem", text)
