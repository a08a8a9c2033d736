"""Finds a revision in an environment where it was published already, and fetches its bundle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from agent.formats import wording
from agent.model.errors import AgentError, Code, Conflict, NotFound
from agent.model.manifest import BundleRef, Manifest
from agent.publish import layout, places, reading
from agent.publish.places import Place
from agent.publish.reading import Written
from agent.publish.telling import Teller
from agent.system.cancel import Cancel
from agent.system.keyring import KeyRing

T = TypeVar("T")

_FEW = 3
_OUT_OF_REACH = {Code.SOURCE_UNAVAILABLE, Code.SOURCE_DENIED}


@dataclass(frozen=True, slots=True)
class Origin:
    """An environment to read from. ring: None where its manifests need not be signed."""

    name: str
    places: tuple[Place, ...]
    ring: KeyRing | None
    teller: Teller

    async def desired(self, application: str) -> Manifest:
        """The one revision that all deployment groups here follow; their manifest.

        Raises AgentError: NOT_FOUND, CONFLICT where they follow several, MANIFEST_REFUSED.
        """

        async def work(place: Place) -> list[Written]:
            found = [
                await reading.read_pointer(place, application, group)
                for group in place.target.groups
            ]
            await self._refuse_bad(place, found)
            return found

        answers = await self._ask(work)
        found = {
            f"{place.target.name}, {group}": written
            for place, all_written in answers.items()
            for group, written in zip(place.target.groups, all_written, strict=True)
        }
        if not any(each.manifest for each in found.values()):
            raise NotFound(
                f"cannot find {application} in {self.name}: nothing of it was published there",
                code=Code.NOT_FOUND,
                remedy=f"Look at the name, or publish it: agentctl push BUNDLE --to {self.name}",
            )
        if len({_identity(each.manifest) for each in found.values()}) > 1:
            raise Conflict(
                f"cannot say what {self.name} desires of {application}: it is not one version",
                code=Code.CONFLICT,
                details=tuple(f"{at}: {each.version or 'none'}" for at, each in found.items()),
                remedy="Name the version that is meant, by --version; or push it everywhere first",
            )
        return _plain(next(iter(found.values())).manifest)

    async def of_version(self, application: str, version: str) -> Manifest:
        """The manifest of a version that was published here once.

        Raises AgentError: NOT_FOUND, CONFLICT where targets have different bundles of it.
        """

        async def work(place: Place) -> Written:
            written = await reading.read_index(place, application, version)
            if written.manifest is not None and written.version != version:
                raise AgentError(
                    f"cannot use {place.store.url_of(written.key)}: it is of {written.version}",
                    code=Code.MANIFEST_REFUSED,
                    remedy="Find out who wrote it, then push that version again",
                )
            await self._refuse_bad(place, [written])
            return written

        found = [each for each in (await self._ask(work)).values() if each.manifest]
        if not found:
            raise await self._unknown(application, version)
        if len({_identity(each.manifest) for each in found}) > 1:
            raise Conflict(
                f"cannot choose {application} {version} in {self.name}: its targets have"
                " different bundles of it",
                code=Code.CONFLICT,
                remedy=f"See them, by: agentctl releases {application}",
            )
        return _plain(found[0].manifest)

    async def fetch(self, application: str, bundle: BundleRef, folder: Path) -> Path:
        """The bundle as a file in `folder`, from the first target that has it.

        Raises AgentError: BUNDLE_DAMAGED where its bytes are not those that were published.
        """
        key = layout.bundle_key(application, bundle.sha256)
        path = folder / f"{bundle.sha256}.zip"
        failure: AgentError | None = None
        for place in self.places:
            try:
                info = await place.store.head(key)
                if info is None:
                    continue
                if info.size != bundle.size:
                    raise _altered(place, key, f"{bundle.size} bytes", f"{info.size} bytes")
                await self._download(place, key, bundle, path)
                return path
            except AgentError as error:
                if error.code not in _OUT_OF_REACH:
                    raise
                self.teller.say(f"{place.name}: failed: {error.message}")
                failure = failure or error
        raise failure or AgentError(
            f"cannot find the bundle of {application} in {self.name}: no target has {key}",
            code=Code.BUNDLE_MISSING,
            remedy="Build it again from the same commit, then push it",
        )

    async def _download(self, place: Place, key: str, bundle: BundleRef, path: Path) -> None:
        def progress(done: int, total: int) -> None:
            self.teller.progress(place.name, done, total)

        fetched = await place.store.download(
            key, path, size=bundle.size, limit_bytes=bundle.size, cancel=Cancel(), progress=progress
        )
        if fetched.sha256 != bundle.sha256:
            there = f"sha256 {fetched.sha256}"
            raise _altered(place, key, f"sha256 {bundle.sha256}", there)
        self.teller.say(f"{place.name}: bundle fetched")

    async def _ask(self, work: Callable[[Place], Awaitable[T]]) -> dict[Place, T]:
        """What the targets that can be reached say; raises AgentError if none can.

        One that is down, or not for us to read, is told and left out: the others know as well.
        """
        good: dict[Place, T] = {}
        down: list[AgentError] = []
        for place, answer in (await places.at_each(self.places, work)).items():
            if isinstance(answer, AgentError) and answer.code in _OUT_OF_REACH:
                down.append(answer)
                self.teller.say(f"{place.name}: not asked: {answer.message}")
            elif isinstance(answer, AgentError):
                raise answer
            else:
                good[place] = answer
        if not good:
            raise down[0]
        return good

    async def _refuse_bad(self, place: Place, found: list[Written]) -> None:
        for written in found:
            if written.problem is not None:
                raise written.problem
            if written.manifest is not None and self.ring is not None:
                await reading.ensure_signed(place, written, written.manifest.application, self.ring)

    async def _unknown(self, application: str, version: str) -> NotFound:
        async def work(place: Place) -> list[str]:
            listed = await reading.list_versions(place, application)
            return [layout.indexed_version(each.key) for each in listed]

        known = {each for versions in (await self._ask(work)).values() for each in versions}
        near = wording.nearest(version, sorted(known - {""}), count=_FEW)
        return NotFound(
            f"cannot find {application} {version} in {self.name}: it was not published there",
            code=Code.NOT_FOUND,
            remedy=(f"Is {wording.listed(near)} meant? " if near else "")
            + f"See what is there, by: agentctl releases {application}",
        )


def _altered(place: Place, key: str, published: str, there: str) -> AgentError:
    return AgentError(
        f"cannot use {place.store.url_of(key)}: it is not what was published",
        code=Code.BUNDLE_DAMAGED,
        details=(f"published: {published}", f"there now: {there}"),
        remedy="Find out who changed it; then remove it there, and push the bundle again",
    )


def _identity(found: Manifest | None) -> tuple[str, str]:
    return (found.version, reading.bundle_of(found).sha256) if found else ("", "")


def _plain(found: Manifest | None) -> Manifest:
    """A manifest without what depended on where it was published."""
    assert found is not None
    bundle = reading.bundle_of(found)
    bundle = replace(bundle, url=layout.bundle_url(bundle.sha256))
    return replace(found, bundle=bundle, deployment_group="", serial=0, expires=0.0)
