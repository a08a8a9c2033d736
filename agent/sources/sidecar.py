"""A bundle on this host with its manifest beside it: <bundle>.release.json, and its .minisig."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from agent.formats import manifest
from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code, from_os_error
from agent.sources.gate import Gate, Offer

_MANIFEST_SUFFIX = ".release.json"
_SIGNATURE_SUFFIX = ".minisig"
_SIGNATURE_BYTES = 64 * 2**10


def described(revision: Revision, gate: Gate, *, is_ordered: bool = True) -> Revision:
    """The revision of a bundle on this host, with what its manifest says; blocks.

    Without a manifest it is given back as it is, unless this host has keys. is_ordered: whether it
    must not be older than what came before. Raises AgentError (MANIFEST_REFUSED).
    """
    path = Path(f"{revision.bundle}{_MANIFEST_SUFFIX}")
    text = _read(path, manifest.POINTER_MAX_BYTES)
    if text is None:
        if gate.wants_signature():
            raise AgentError(
                f"cannot accept {revision.bundle}: it is not signed, and this host has keys",
                code=Code.MANIFEST_REFUSED,
                remedy=f"Put its manifest and signature beside it, as {path.name} and"
                f" {path.name}{_SIGNATURE_SUFFIX}; or, by hand and at your own risk:"
                " agentctl deploy --unsigned REASON BUNDLE",
                where=revision.bundle,
            )
        return revision
    admitted = gate.admit(
        Offer(
            name=str(path),
            text=text,
            signature=_read(Path(f"{path}{_SIGNATURE_SUFFIX}"), _SIGNATURE_BYTES),
            application=revision.application,
            group=revision.group,
            is_ordered=is_ordered,
        )
    )
    found = admitted.manifest
    assert found.bundle is not None  # a pointer has one
    return dataclasses.replace(
        revision,
        version=found.version,
        digest=found.bundle.sha256,
        size=found.bundle.size,
        commit=found.commit,
        signed_by=admitted.signed_by,
    )


def _read(path: Path, limit: int) -> bytes | None:
    """A small file; None if there is none. One that is too long is refused by who parses it."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.MANIFEST_REFUSED) from error
