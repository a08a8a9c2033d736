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
from collections.abc import Sequence

from agent.files import acl, planfile, selinux
from agent.model.appspec import Permission

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
                selinux.arguments(each.context),
            ),
        )

    @functools.cache
    def text(rule: int, mode: int, kind: str) -> str:
        return acl.acl_text(permissions[rule].acls, mode, kind)

    plan.create_function("acl_text", 3, text, deterministic=True)
    plan.create_function(
        "acl_mode",
        2,
        lambda rule, mode: acl.acl_mode(permissions[rule].acls, mode),
        deterministic=True,
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


class Met:
    """The first path by the number of the permission that applies to it, and its kind."""

    def __init__(self, plan: sqlite3.Connection, rule: str, values: dict[str, str]) -> None:
        """rule, values: of rule_of()."""
        self._plan = plan
        self._rule = rule
        self._values = values
        self.first: dict[tuple[int, str], str] = {}

    def look(self, wanted: str, where: dict[str, str]) -> None:
        """Look at what a SELECT of wanted paths gives; where: its parameters."""
        if not self._values:
            return
        query = (
            "SELECT rule, kind, min(path)"  # noqa: S608 - our own text
            f" FROM (SELECT path, kind, {self._rule} AS rule FROM ({wanted}))"
            " WHERE rule IS NOT NULL GROUP BY rule, kind"
        )
        for rule, kind, path in self._plan.execute(query, {**self._values, **where}):
            self.first.setdefault((rule, kind), path)


def check_rules(plan: sqlite3.Connection, permissions: Sequence[Permission], met: Met) -> None:
    """Save problems for permissions that cannot be meant, warnings for those that meet nothing."""
    used = {rule for rule, _ in met.first}
    for number, each in enumerate(permissions):
        path = os.path.normpath(each.object)
        file = met.first.get((number, "file"))
        if file == path and (each.pattern != EVERYTHING or each.excludes):
            text = f"permissions of {path}: it is a file, so it can have no pattern and no except"
            planfile.add_finding(plan, "problem", text, path=path)
        if file and any(entry.default for entry in each.acls):
            text = (
                f"permissions of {path}: a default ACL is for folders, and {file} is a file;"
                " set type to [directory]"
            )
            planfile.add_finding(plan, "problem", text, path=path)
        if number not in used:
            text = f"permissions of {path}: nothing that this revision installs is meant by it"
            planfile.add_finding(plan, "warning", text, path=path)
