"""A bundle on this host, and its signature beside it: <bundle>.minisig, as minisign writes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code, from_os_error
from agent.sources.keys import Keys

SUFFIX = ".minisig"
_SIGNATURE_BYTES = 64 * 2**10


def checked(revision: Revision, keys: Keys) -> Revision:
    """The revision of a bundle on this host, now that its signature was checked; blocks.

    It is given back as it is where this host has no keys. Its digest is that of the bytes that were
    checked: what is fetched later has to be these. Raises AgentError (MANIFEST_REFUSED).
    """
    if not keys.wants_signature():
        return revision
    path = Path(f"{revision.bundle}{SUFFIX}")
    try:
        with path.open("rb") as file:
            signature = file.read(_SIGNATURE_BYTES + 1)
    except FileNotFoundError as error:
        raise AgentError(
            f"cannot accept {revision.bundle}: it is not signed, and this host has keys in"
            f" {keys.folder}",
            code=Code.MANIFEST_REFUSED,
            remedy="Sign it where the key is (agentctl key sign, or minisign -S), and put"
            f" {path.name} beside it; or, by hand and at your own risk:"
            " agentctl deploy --unsigned REASON BUNDLE",
            where=revision.bundle,
        ) from error
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.MANIFEST_REFUSED) from error
    key_id, sha256 = keys.check_file(Path(revision.bundle), signature)
    return dataclasses.replace(revision, digest=sha256, signed_by=key_id)
