"""Access control lists: from the appspec's entries to what the kernel keeps.

Source of the rules: the AWS agent's behaviour (it fills in the base entries from the mode, and a
mask from the group), setfacl(1), acl(5).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.files import planfile
from agent.files.owners import Capture
from agent.model.appspec import AclEntry

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"


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
        with tempfile.TemporaryDirectory(prefix="acl-", dir=scratch) as folder:
            probe = Path(folder, "probe")
            probe.mkdir() if kind == "dir" else probe.touch()
            answer = capture(("setfacl", "--set", acl, "--", str(probe)))
            if answer.code == 0:
                plan.execute("INSERT INTO acls VALUES (?, ?, ?, ?)", (acl, kind, *read_acls(probe)))
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
    for name in (ACCESS, DEFAULT):
        try:
            found.append(os.getxattr(path, name, follow_symlinks=False))
        except OSError:  # no ACL, or a file system without ACLs
            found.append(None)
    return found[0], found[1]


def set_acls(descriptor: int, access: bytes | None, default: bytes | None) -> None:
    """Set what is given on an open file or folder. Raises OSError."""
    for name, value in ((ACCESS, access), (DEFAULT, default)):
        if value is not None:
            os.setxattr(descriptor, name, value)


def put_acls_back(descriptor: int, access: bytes | None, default: bytes | None) -> None:
    """Set what was there, and take away what was not. Raises OSError."""
    set_acls(descriptor, access, default)
    for name, value in ((ACCESS, access), (DEFAULT, default)):
        if value is None:
            with contextlib.suppress(OSError):  # there is none
                os.removexattr(descriptor, name)
