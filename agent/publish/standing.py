"""What stands at a target, held against the revision that is to be published there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agent.model.errors import AgentError, Code, Conflict
from agent.model.manifest import Manifest
from agent.publish import layout, reading
from agent.publish.places import Place
from agent.publish.reading import Written
from agent.system.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Wanted:
    """described: the manifest, without what depends on the target.

    ring: None where pointers need not be signed. lasting_seconds: of a new pointer, 0.0 for ever.
    """

    described: Manifest
    ring: KeyRing | None
    lasting_seconds: float


@dataclass(slots=True)
class Standing:
    """pointers: by group. right: the groups whose hosts get the revision, and go on to.

    texts: by group, the new pointers to be written.
    """

    pointers: dict[str, Written]
    right: set[str]
    has_bundle: bool
    index: Written
    texts: dict[str, bytes] = field(default_factory=dict)


async def look(place: Place, wanted: Wanted) -> Standing:
    """Read what is there. Raises AgentError if the store does not answer."""
    application = wanted.described.application
    bundle = reading.bundle_of(wanted.described)
    pointers, right = {}, set()
    for group in place.target.groups:
        pointers[group] = await reading.read_pointer(place, application, group)
        if await _is_right(place, wanted, pointers[group], group):
            right.add(group)
    index = await reading.read_index(place, application, wanted.described.version)
    info = await place.store.head(layout.bundle_key(application, bundle.sha256))
    has_bundle = info is not None and info.size == bundle.size
    return Standing(pointers, right, has_bundle, index)


async def _is_right(place: Place, wanted: Wanted, pointer: Written, group: str) -> bool:
    """Whether hosts that follow it get the revision, and go on to for long enough."""
    if not (is_same(wanted.described, pointer.manifest, group) and _lasts(wanted, pointer)):
        return False
    if wanted.ring is None:
        return True
    try:
        await reading.ensure_signed(place, pointer, wanted.described.application, wanted.ring)
    except AgentError as error:
        if error.code is Code.MANIFEST_REFUSED:
            return False
        raise
    return True


def is_same(described: Manifest, found: Manifest | None, group: str) -> bool:
    """Whether a pointer brings hosts of a group this revision."""
    return (
        found is not None
        and found.version == described.version
        and found.bundle == described.bundle
        and found.deployment_group == group
    )


def _lasts(wanted: Wanted, pointer: Written) -> bool:
    """A manifest is renewed once half of its time is over."""
    expires = pointer.manifest.expires if pointer.manifest else 0.0
    if not wanted.lasting_seconds:
        return expires == 0
    return time.time() + wanted.lasting_seconds / 2 <= expires


def refuse_other_bytes(place: Place, described: Manifest, index: Written) -> None:
    """Raise Conflict where this version is another bundle there."""
    if index.manifest is None:
        return
    there, here = (reading.bundle_of(each).sha256 for each in (index.manifest, described))
    if there != here:
        raise Conflict(
            f"cannot publish {described.application} {described.version} to {place.name}:"
            " another bundle with this version is there",
            code=Code.CONFLICT,
            details=(f"there: sha256 {there}", f"here:  sha256 {here}"),
            remedy="A version never changes: give the new bundle a version of its own",
        )
