"""ACL entries of an appspec to what setfacl is told, as AWS's agent fills them in."""

from __future__ import annotations

import pytest

from agent.files import acl
from agent.model.appspec import AclEntry

BASE = "user::rw-,group::r--,other::---"
BOB = AclEntry(default=False, kind="user", name="bob", perms="rw-")
MASK = AclEntry(default=False, kind="mask", name="", perms="r--")
D_BOB = AclEntry(default=True, kind="user", name="bob", perms="r-x")
D_GROUP = AclEntry(default=True, kind="group", name="", perms="-wx")


@pytest.mark.parametrize(
    ("entries", "kind", "text"),
    [
        ([BOB], "file", "user:bob:rw-,user::rw-,group::r--,other::---,mask::r--"),
        ([BOB, MASK], "file", "user:bob:rw-,mask::r--,user::rw-,group::r--,other::---"),
        ([MASK], "file", "mask::r--,user::rw-,group::r--,other::---"),
        (
            [D_BOB],
            "dir",
            BASE + ",default:user:bob:r-x,default:user::rw-,default:group::r--,"
            "default:other::---,default:mask::r--",
        ),
        (
            [D_BOB, D_GROUP],
            "dir",
            BASE + ",default:user:bob:r-x,default:group::-wx,default:user::rw-,"
            "default:other::---,default:mask::-wx",
        ),
    ],
)
def test_base_entries_come_from_the_mode(entries: list[AclEntry], kind: str, text: str) -> None:
    assert acl.acl_text(entries, 0o640, kind) == text


def test_the_mode_shows_the_mask() -> None:
    assert acl.acl_mode([BOB], 0o640) == 0o640
    assert acl.acl_mode([BOB, MASK], 0o660) == 0o640
