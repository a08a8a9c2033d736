"""Which manifests may come in: signature, group, serial, expiry, and the kind of host."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.formats import admission, manifest
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest
from agent.system import os_release
from agent.system.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Admitted:
    """A manifest that may be deployed here.

    digest: sha256 of its text, in hex. signed_by: id of the key, "" where none is configured.
    """

    manifest: Manifest
    digest: str
    signed_by: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A manifest as it was found. name: the place that errors name; signature: None without one."""

    name: str
    text: bytes
    signature: bytes | None
    application: str
    group: str


class Gate:
    """Checks what is offered to this host. All methods block.

    keys_dir: where the keys are.
    seen: the highest serial that was admitted of an application and group; remember: saves one.
    """

    def __init__(
        self,
        keys_dir: Path,
        *,
        seen: Callable[[str, str], int],
        remember: Callable[[str, str, int], None],
    ) -> None:
        self.keys_dir = keys_dir
        self._seen = seen
        self._remember = remember

    def wants_signature(self) -> bool:
        """Whether unsigned is refused here: with the first key. Raises AgentError for a bad key."""
        return not KeyRing.load(self.keys_dir).is_empty

    def check_file(self, path: Path, signature: bytes) -> tuple[str, str]:
        """Check the signature of a bundle itself: key id, and sha256 of what was signed."""
        return KeyRing.load(self.keys_dir).check_file(path, signature)

    def admit(self, offer: Offer) -> Admitted:
        """Check a manifest and remember its serial; raises AgentError (MANIFEST_REFUSED)."""
        signed_by = self._check_signature(offer)
        found = manifest.parse_pointer(offer.text)
        seen = self._seen(offer.application, offer.group)
        admission.admit(
            found,
            application=offer.application,
            group=offer.group,
            now=time.time(),
            highest_serial=seen,
            os_id=os_release.read_os_id(),
            arch=os_release.read_arch(),
            signed=bool(signed_by),
        )
        if found.serial > seen:
            self._remember(offer.application, offer.group, found.serial)
        return Admitted(found, hashlib.sha256(offer.text).hexdigest(), signed_by)

    def _check_signature(self, offer: Offer) -> str:
        ring = KeyRing.load(self.keys_dir)
        if ring.is_empty:
            return ""
        if offer.signature is None:
            raise AgentError(
                f"cannot accept {offer.name}: it is not signed, and this host has keys in"
                f" {self.keys_dir}",
                code=Code.MANIFEST_REFUSED,
                remedy="Publish it with the key of this environment: agentctl push",
                where=offer.name,
            )
        return ring.check(offer.text, offer.signature, what=offer.name)
