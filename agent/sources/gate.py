"""Which manifests may come in: signature, group, serial, expiry, and the kind of host."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.formats import admission, manifest
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest
from agent.sources.keys import Keys
from agent.system import os_release


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

    seen: the highest serial that was admitted of an application and group; remember: saves one.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        seen: Callable[[str, str], int],
        remember: Callable[[str, str, int], None],
    ) -> None:
        self.keys = keys
        self._seen = seen
        self._remember = remember

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
        if not self.keys.wants_signature():
            return ""
        if offer.signature is None:
            raise AgentError(
                f"cannot accept {offer.name}: it is not signed, and this host has keys in"
                f" {self.keys.folder}",
                code=Code.MANIFEST_REFUSED,
                remedy="Publish it with the key of this environment: agentctl push",
                where=offer.name,
            )
        return self.keys.check(offer.text, offer.signature, what=offer.name)
