"""Puts one revision before the hosts of an environment: every upload first, then the pointers.

A pointer is flipped only when all uploads stand, at every target. What stands is not done again,
so a run that was interrupted, or failed in part, is gone on with by the same command.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.formats import admission, manifest
from agent.model.environments import Environment
from agent.model.errors import AgentError, Code, Conflict
from agent.model.manifest import Manifest
from agent.publish import layout, places, reading, standing
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
from agent.publish.standing import Standing, Wanted
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
        self._standing: dict[Place, Standing] = {}
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
        order = self._order
        wanted = Wanted(self._described, order.keys.ring, order.environment.expires_seconds)

        async def work(place: Place) -> None:
            self._standing[place] = await standing.look(place, wanted)

        await self._at_each(list(self._results), work)
        self._standing = {each: self._standing[each] for each in self._good()}  # in their order
        for place, found in self._standing.items():
            standing.refuse_other_bytes(place, self._described, found.index)
            if found.has_bundle:
                self._results[place].bundle = BundleResult.THERE
            for group in self._results[place].groups:
                pointer = found.pointers[group.group]
                group.before, group.serial = pointer.version, pointer.serial
                group.expires = pointer.manifest.expires if pointer.manifest else 0.0
                if group.group in found.right:
                    group.pointer = PointerResult.RIGHT
        self._write_texts()

    # what is to be

    def _write_texts(self) -> None:
        """The new pointers. Their serial is above all that were seen, also where clocks differ."""
        now = int(time.time())
        seen = [p.serial for each in self._standing.values() for p in each.pointers.values()]
        # no host took one from far ahead: its wrong clock, or whoever wrote it, is not followed
        taken = [each for each in seen if each <= now + admission.SERIAL_AHEAD_SECONDS]
        serial = max([now, *(each + 1 for each in taken)])
        lasting = self._order.environment.expires_seconds
        for place, found in self._standing.items():
            for group in self._results[place].groups:
                if group.group in found.right:
                    continue
                made = replace(
                    self._described,
                    deployment_group=group.group,
                    serial=serial,
                    expires=float(now + int(lasting)) if lasting else 0.0,
                )
                found.texts[group.group] = manifest.dump_manifest(made)

    def foresee(self) -> None:
        """Note what would happen, had it been asked for."""
        would_flip = self._may_go_on()
        for place, found in self._standing.items():
            result = self._results[place]
            if not found.has_bundle:
                result.bundle = BundleResult.WOULD_UPLOAD
            for group in result.groups:
                if would_flip and group.group in found.texts:
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
        comment = f"{self._described.application} {self._described.version} {group} release.json"
        return self._order.keys.sign(text, comment=comment)

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
            seen = await self._write_pointer(place, result.group, text)
            assert seen.manifest is not None
            result.serial, result.expires = seen.serial, seen.manifest.expires
            if seen.text == text:
                result.pointer = PointerResult.FLIPPED
                self._teller.say(f"{place.name}: {result.group} flipped to {seen.version}")
                await self._write_twin(place, result.group, text)
            else:
                result.pointer = PointerResult.RIGHT

    async def _write_pointer(self, place: Place, group: str, text: bytes) -> Written:
        """Replace what was seen at the beginning, and give what is there now.

        Raises Conflict where somebody else wrote another revision there meanwhile.
        """
        before = self._standing[place].pointers[group]
        now = await reading.read_pointer(place, self._described.application, group)
        if now.text == before.text:
            with contextlib.suppress(Conflict):  # it may be ours all the same: a lost answer
                await place.store.write(before.key, text, replaces=now.etag)
                return replace(before, text=text, manifest=manifest.parse_pointer(text))
            now = await reading.read_pointer(place, self._described.application, group)
        if standing.is_same(self._described, now.manifest, group):
            return now
        found = f"it is {now.version}, serial {now.serial}" if now.manifest else "it is unreadable"
        raise Conflict(
            f"cannot flip {place.store.url_of(now.key)}: somebody else changed it meanwhile,"
            f" {found}",
            code=Code.CONFLICT,
            remedy="Agree on what is to be desired, then run this again",
        )

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
