"""What stands at a place: pointers, and what is remembered of versions."""

from __future__ import annotations

from dataclasses import dataclass

from agent.formats import manifest
from agent.model.errors import AgentError, Code, NotFound
from agent.model.manifest import BundleRef, Manifest
from agent.model.transfer import ObjectInfo
from agent.publish import layout
from agent.publish.places import Place
from agent.system.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Written:
    """A manifest in a store. text: b"" where there is none.

    manifest: None where there is none, or where problem says why the text is none.
    """

    key: str
    text: bytes = b""
    etag: str = ""
    manifest: Manifest | None = None
    problem: AgentError | None = None

    @property
    def version(self) -> str:
        """The version; "" where there is no manifest."""
        return self.manifest.version if self.manifest else ""

    @property
    def serial(self) -> int:
        """The serial; 0 where there is no manifest."""
        return self.manifest.serial if self.manifest else 0


async def read_pointer(place: Place, application: str, group: str) -> Written:
    """What a deployment group follows. Raises AgentError if the store does not answer."""
    return await _read(place, layout.pointer_key(application, group), application)


async def read_index(place: Place, application: str, version: str) -> Written:
    """The last manifest of a version. Raises AgentError if the store does not answer."""
    return await _read(place, layout.index_key(application, version), application)


async def list_versions(place: Place, application: str) -> list[ObjectInfo]:
    """The index entries of all versions; layout.indexed_version has their names."""
    return await place.store.list(layout.index_prefix(application), limit=layout.MOST_VERSIONS)


async def _read(place: Place, key: str, application: str) -> Written:
    try:
        answer = await place.store.read(key, limit_bytes=manifest.POINTER_MAX_BYTES)
    except NotFound:
        return Written(key)
    text = answer.body or b""
    try:
        parsed = manifest.parse_pointer(text, where=place.store.url_of(key))
        if parsed.application != application:
            raise _foreign(place, key, parsed.application)
    except AgentError as error:
        return Written(key, text, answer.etag, problem=error)
    return Written(key, text, answer.etag, parsed)


def _foreign(place: Place, key: str, application: str) -> AgentError:
    return AgentError(
        f"cannot use the manifest {place.store.url_of(key)}: it is one of {application}",
        code=Code.MANIFEST_REFUSED,
    )


def bundle_of(described: Manifest) -> BundleRef:
    """The bundle of a manifest that came from a pointer, which has one."""
    assert described.bundle is not None
    return described.bundle


async def ensure_signed(place: Place, written: Written, application: str, ring: KeyRing) -> None:
    """Raise AgentError (MANIFEST_REFUSED) unless a key of the ring signed the text.

    A manifest in the index is the pointer of a group, and lies beside that one's signature.
    """
    assert written.manifest is not None
    group = written.manifest.deployment_group or written.key.split("/")[-2]
    key = layout.signature_key(application, group, written.text)
    try:
        signature = (await place.store.read(key)).body or b""
    except NotFound as error:
        raise AgentError(
            f"cannot trust {place.store.url_of(written.key)}: it is not signed",
            code=Code.MANIFEST_REFUSED,
            details=(f"there is no {place.store.url_of(key)}",),
            remedy="Find out who wrote it, then publish it again, by: agentctl push",
        ) from error
    ring.check(written.text, signature, what=place.store.url_of(written.key))
