"""Keys of Consul to variables, and variables to the text of an EnvironmentFile: systemd.exec(5).

Whatever is said of them names keys and counts: values are secrets, and are in no message.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from agent.model.consul import KvSnapshot
from agent.model.errors import AgentError, Code

EMPTY_MARK = ".empty"  # a key that says: no values are what is meant

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_BYTES = 128 * 1024 - 1  # of NAME=value: MAX_ARG_STRLEN of execve(2), with its NUL
_ESCAPED = re.compile(r'["\\`$]')
_HEAD = "# Written by deploy-agent from Consul, {prefix}/: what is changed here is lost.\n"
_LISTED = 20


def parse_values(snapshot: KvSnapshot) -> dict[str, str]:
    """The variables of a snapshot; raises AgentError (ENVIRONMENT_REFUSED) with every bad key."""
    found: dict[str, str] = {}
    problems = []
    for key, value in sorted(snapshot.values.items()):
        if key == EMPTY_MARK:
            continue
        if not _NAME.fullmatch(key):
            problems.append(f"{snapshot.prefix}{key}: no name of a variable")
        elif b"\0" in value:
            problems.append(f"{snapshot.prefix}{key}: its value has a byte 0")
        elif len(key) + 1 + len(value) > _MAX_BYTES:
            problems.append(f"{snapshot.prefix}{key}: its value is longer than 128 KiB")
        else:
            try:
                found[key] = value.decode()
            except UnicodeDecodeError:
                problems.append(f"{snapshot.prefix}{key}: its value is not UTF-8")
    if problems:
        raise AgentError(
            f"cannot use the keys below {snapshot.prefix} in Consul: {problems[0]}"
            + (f", and {len(problems) - 1} more" if len(problems) > 1 else ""),
            code=Code.ENVIRONMENT_REFUSED,
            details=tuple(problems[:_LISTED]),
            remedy="Names are letters, digits and _, such as DB_HOST, without folders below"
            " the prefix: correct the keys",
        )
    if not found and EMPTY_MARK not in snapshot.values:
        raise AgentError(
            f"cannot use the keys below {snapshot.prefix} in Consul: there are none",
            code=Code.ENVIRONMENT_REFUSED,
            remedy="Write them, or where none is what you mean, the key"
            f" {snapshot.prefix}{EMPTY_MARK}: consul kv put {snapshot.prefix}{EMPTY_MARK} 1",
        )
    return found


def write_text(prefix: str, values: Mapping[str, str]) -> str:
    """The text of an EnvironmentFile, which a shell's `.` reads just so.

    systemd.exec(5): within double quotes a value may have line ends, and a backslash before one of
    the four characters that need it.
    """
    lines = (
        f'{name}="{_ESCAPED.sub(lambda found: chr(92) + found[0], value)}"\n'
        for name, value in sorted(values.items())
    )
    return _HEAD.format(prefix=prefix) + "".join(lines)


def digest_of(values: Mapping[str, str]) -> str:
    """Tells one set of values from another."""
    return hashlib.sha256(json.dumps(sorted(values.items())).encode()).hexdigest()


def describe_change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Such as "2 added, 1 changed (DB_HOST, …)": names, never values."""
    added = new.keys() - old.keys()
    removed = old.keys() - new.keys()
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    counts = [
        f"{len(names)} {what}"
        for names, what in ((added, "added"), (changed, "changed"), (removed, "removed"))
        if names
    ]
    if not counts:
        return "nothing changed"
    names = sorted(added | removed | changed)
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return f"{', '.join(counts)} ({listed})"
