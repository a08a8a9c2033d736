"""Puts one revision before the hosts of an environment: every upload first, then the pointers.

A pointer is flipped only when all uploads stand, at every target. What stands is not done again,
so a run that was interrupted, or failed in part, is gone on with by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.formats import admission, manifest
from agent.model.environments import Environment
from agent.model.errors import AgentError, Code, Conflict
from agent.model.manifest import Manifest
from agent.publish import layout, places, reading
from agent.publish.places import Place
from agent.publish.reading import Written
from agent.publish.results import (
    BundleResult,
    GroupResult,
    PointerResult,
    Publication,
    TargetResult,
)
from agent.publish.signing import Keys
from agent.publish.telling import Teller

# Gives the bundle as a file; called only where a target lacks it.
Fetch = Callable[[], Awaitable[Path]]


@dataclass(frozen=True, slots=True)
class Order:
    """described: the manifest to publish, without what depends on the target.

    is_dry_run: say what would happen, and only read. is_partial: flip the pointers of the targets
    where the uploads stand, even if others failed.
    """

    environment: Environment
    described: Manifest
    keys: Keys
    source: str
    is_dry_run: bool = False
    is_partial: bool = False


@dataclass(slots=True)
class _Standing:
    """What was found at a target. texts: the new pointers by group, of those to be flipped."""

    pointers: dict[str, Written]
    right: set[str]
    has_bundle: bool
    index: Written
    texts: dict[str, bytes] = field(default_factory=dict)


async def deliver(
    order: Order, all_places: tuple[Place, ...], fetch: Fetch, teller: Teller
) -> Publication:
    """Do it, and give back what happened where.

    Raises AgentError only where no target was touched: another bundle with this version is there
    (CONFLICT), the bundle cannot be had.
    """
    run = _Run(order, all_places, teller)
    await run.look()
    if order.is_dry_run:
        run.foresee()
    else:
        await run.upload(fetch)
        await run.prepare()
        await run.flip()
    return run.publication


class _Run:
    def __init__(self, order: Order, all_places: tuple[Place, ...], teller: Teller) -> None:
        described = order.described
        self._order = order
        self._described = described
        self._bundle = reading.bundle_of(described)
        self._teller = teller
        self._standing: dict[Place, _Standing] = {}
        self._results = {
            place: TargetResult(
                place.target.name,
                place.target.place.url,
                [GroupResult(group) for group in place.target.groups],
            )
            for place in all_places
        }
        self.publication = Publication(
            environment=order.environment.name,
            application=described.application,
            version=described.version,
            bundle=self._bundle,
            source=order.source,
            is_dry_run=order.is_dry_run,
            targets=list(self._results.values()),
        )

    # what stands

    async def look(self) -> None:
        """Read what stands at every target. Raises Conflict where the version is another bundle."""

        async def work(place: Place) -> None:
            self._standing[place] = await self._look(place)

        await self._at_each(list(self._results), work)
        self._standing = {each: self._standing[each] for each in self._good()}  # in their order
        for place, standing in self._standing.items():
            self._refuse_other_bytes(place, standing.index)
            self._results[place].bundle = (
                BundleResult.THERE if standing.has_bundle else BundleResult.MISSING
            )
            for group in self._results[place].groups:
                pointer = standing.pointers[group.group]
                group.before, group.serial = pointer.version, pointer.serial
                group.expires = pointer.manifest.expires if pointer.manifest else 0.0
                if group.group in standing.right:
                    group.pointer = PointerResult.RIGHT
        self._write_texts()

    async def _look(self, place: Place) -> _Standing:
        application, digest = self._described.application, self._bundle.sha256
        pointers, right = {}, set()
        for group in place.target.groups:
            pointers[group] = await reading.read_pointer(place, application, group)
            if await self._is_right(place, pointers[group], group):
                right.add(group)
        index = await reading.read_index(place, application, self._described.version)
        info = await place.store.head(layout.bundle_key(application, digest))
        has_bundle = info is not None and info.size == self._bundle.size
        return _Standing(pointers, right, has_bundle, index)

    async def _is_right(self, place: Place, pointer: Written, group: str) -> bool:
        """Whether hosts that follow it get this revision, and go on to for long enough."""
        if not (self._is_same(pointer, group) and self._lasts(pointer)):
            return False
        if self._order.keys.ring is None:
            return True
        try:
            await reading.ensure_signed(
                place, pointer, self._described.application, self._order.keys.ring
            )
        except AgentError as error:
            if error.code is Code.MANIFEST_REFUSED:
                return False
            raise
        return True

    def _is_same(self, pointer: Written, group: str) -> bool:
        found = pointer.manifest
        return (
            found is not None
            and found.version == self._described.version
            and found.bundle == self._bundle
            and found.deployment_group == group
        )

    def _lasts(self, pointer: Written) -> bool:
        """A manifest is renewed once half of its time is over."""
        assert pointer.manifest is not None
        lasting = self._order.environment.expires_seconds
        if not lasting:
            return pointer.manifest.expires == 0
        return time.time() + lasting / 2 <= pointer.manifest.expires

    def _refuse_other_bytes(self, place: Place, index: Written) -> None:
        found = index.manifest
        if found is None or reading.bundle_of(found).sha256 == self._bundle.sha256:
            return
        digest = reading.bundle_of(found).sha256
        raise Conflict(
            f"cannot publish {self._described.application} {self._described.version} to"
            f" {place.name}: another bundle with this version is there",
            code=Code.CONFLICT,
            details=(f"there: sha256 {digest}", f"here:  sha256 {self._bundle.sha256}"),
            remedy="A version never changes: give the new bundle a version of its own",
        )

    # what is to be

    def _write_texts(self) -> None:
        """The new pointers. Their serial is above all that were seen, also where clocks differ."""
        now = int(time.time())
        seen = [p.serial for each in self._standing.values() for p in each.pointers.values()]
        # no host took one from far ahead: its wrong clock, or whoever wrote it, is not followed
        taken = [each for each in seen if each <= now + admission.SERIAL_AHEAD_SECONDS]
        serial = max([now, *(each + 1 for each in taken)])
        lasting = self._order.environment.expires_seconds
        for place, standing in self._standing.items():
            for group in self._results[place].groups:
                if group.group in standing.right:
                    continue
                made = replace(
                    self._described,
                    deployment_group=group.group,
                    serial=serial,
                    expires=float(now + int(lasting)) if lasting else 0.0,
                )
                standing.texts[group.group] = manifest.dump_manifest(made)

    def foresee(self) -> None:
        """Note what would happen, had it been asked for."""
        would_flip = self._may_go_on()
        for place, standing in self._standing.items():
            result = self._results[place]
            if not standing.has_bundle:
                result.bundle = BundleResult.WOULD_UPLOAD
            for group in result.groups:
                if would_flip and group.group in standing.texts:
                    group.pointer = PointerResult.WOULD_FLIP

    async def upload(self, fetch: Fetch) -> None:
        """Bring the bundle to every target that lacks it. Raises AgentError if it cannot be had."""
        lacking = [place for place, each in self._standing.items() if not each.has_bundle]
        if not lacking:
            return
        path = await fetch()

        async def work(place: Place) -> None:
            def progress(done: int, total: int) -> None:
                self._teller.progress(place.name, done, total)

            self._teller.progress(place.name, 0, self._bundle.size)
            key = layout.bundle_key(self._described.application, self._bundle.sha256)
            digest = self._bundle.sha256
            await place.store.upload(key, path, sha256=digest, progress=progress)
            self._results[place].bundle = BundleResult.UPLOADED
            self._teller.say(f"{place.name}: uploaded")

        await self._at_each(lacking, work)

    async def prepare(self) -> None:
        """Write the signatures of the new pointers, and the index: before a host can see them."""

        async def work(place: Place) -> None:
            texts = self._standing[place].texts
            for group, text in texts.items():
                if signature := self._signature(group, text):
                    key = layout.signature_key(self._described.application, group, text)
                    await place.store.write(key, signature, content_type="text/plain")
            for text in list(texts.values())[:1]:  # any one: what counts is version and bundle
                key = layout.index_key(self._described.application, self._described.version)
                await place.store.write(key, text)

        if self._may_go_on():
            await self._at_each(self._good(), work)

    def _signature(self, group: str, text: bytes) -> bytes:
        """The .minisig of a new pointer; b"" where nothing is signed."""
        secret, described = self._order.keys.secret, self._described
        if secret is None:
            return b""
        comment = f"{described.application} {described.version} {group} release.json"
        return secret.sign(text, trusted_comment=comment)

    # the flip

    async def flip(self) -> None:
        """Let the hosts see it.

        The first target goes first, alone: where two publish at once they meet there, and who
        comes second changes nothing anywhere.
        """
        if not self._may_go_on():
            return
        good = self._good()
        for some in (good[:1], good[1:]):
            await self._at_each(some, self._flip)
            if not self._may_go_on() or self._has_lost():
                return

    async def _flip(self, place: Place) -> None:
        for result in self._results[place].groups:
            text = self._standing[place].texts.get(result.group)
            if text is None:
                continue
            await self._write_pointer(place, result.group, text)
            made = manifest.parse_pointer(text)
            result.pointer = PointerResult.FLIPPED
            result.serial, result.expires = made.serial, made.expires
            self._teller.say(f"{place.name}: {result.group} flipped to {made.version}")
            await self._write_twin(place, result.group, text)

    async def _write_pointer(self, place: Place, group: str, text: bytes) -> None:
        """Replace exactly what was seen at the beginning. Raises Conflict."""
        before = self._standing[place].pointers[group]
        now = await reading.read_pointer(place, self._described.application, group)
        if now.text != before.text:
            raise _overtaken(place, now)
        try:
            await place.store.write(before.key, text, replaces=now.etag)
        except Conflict as error:
            now = await reading.read_pointer(place, self._described.application, group)
            if now.text != text:  # else it was written, and only the answer lost
                raise _overtaken(place, now) from error

    async def _write_twin(self, place: Place, group: str, text: bytes) -> None:
        """The signature where people with minisign look for it; hosts do without it."""
        if signature := self._signature(group, text):
            key = f"{layout.pointer_key(self._described.application, group)}.minisig"
            try:
                await place.store.write(key, signature, content_type="text/plain")
            except AgentError as error:
                self.publication.notes.append(f"{place.name}: {error.message}")

    def _has_lost(self) -> bool:
        return any(isinstance(each.failure, Conflict) for each in self._results.values())

    # targets that fail

    def _good(self) -> list[Place]:
        return [place for place, each in self._results.items() if each.failure is None]

    def _may_go_on(self) -> bool:
        """Whether pointers may be flipped, after all that has happened so far."""
        has_failed = any(each.failure for each in self._results.values())
        return bool(self._good()) and (self._order.is_partial or not has_failed)

    async def _at_each(self, chosen: list[Place], work: Callable[[Place], Awaitable[None]]) -> None:
        """Do it at the places; who fails is told at once, and stops no other."""

        async def told(place: Place) -> None:
            try:
                await work(place)
            except AgentError as error:
                error.where = error.where or place.name
                self._results[place].failure = error
                self._teller.say(f"{place.name}: failed: {error.message}")

        await places.at_each(chosen, told)


def _overtaken(place: Place, now: Written) -> Conflict:
    found = f"it is {now.version}, serial {now.serial}" if now.manifest else "it cannot be read"
    return Conflict(
        f"cannot flip {place.store.url_of(now.key)}: somebody else changed it meanwhile, {found}",
        code=Code.CONFLICT,
        remedy="Agree on what is to be desired, then run this again",
    )
