"""Which version is where: what every deployment group follows, and what was published before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.model.errors import AgentError
from agent.model.manifest import Manifest
from agent.model.transfer import ObjectInfo
from agent.publish import layout, places, reading
from agent.publish.places import Place
from agent.publish.reading import Written
from agent.system.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Followed:
    """What a deployment group follows at a target. since: Unix seconds of the last flip.

    manifest: None where nothing was published, or where problem says why it is no use.
    """

    environment: str
    target: str
    group: str
    manifest: Manifest | None = None
    since: float = 0.0
    problem: AgentError | None = None


@dataclass(slots=True)
class Version:
    """A version that was published. where: by environment, the targets that know it."""

    version: str
    published: float = 0.0
    manifest: Manifest | None = None
    where: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Overview:
    """versions: the last published first. failures: of targets, by their names."""

    followed: tuple[Followed, ...]
    versions: tuple[Version, ...]
    failures: Mapping[str, AgentError]


@dataclass(frozen=True, slots=True)
class _Seen:
    followed: list[Followed]
    indexed: list[ObjectInfo]


async def overview(
    application: str,
    opened: Mapping[str, Sequence[Place]],
    rings: Mapping[str, KeyRing | None],
    *,
    limit: int,
) -> Overview:
    """Look at all places. rings: by environment; limit: so many versions at most."""
    everywhere = [place for some in opened.values() for place in some]

    async def work(place: Place) -> _Seen:
        followed = [
            await _follow(place, application, group, rings[place.environment])
            for group in place.target.groups
        ]
        return _Seen(followed, await reading.list_versions(place, application))

    seen: dict[Place, _Seen] = {}
    failures: dict[str, AgentError] = {}
    for place, answer in (await places.at_each(everywhere, work)).items():
        if isinstance(answer, AgentError):
            failures[place.name] = answer
        else:
            seen[place] = answer
    versions = _versions(seen)[:limit]
    await _describe(versions, application, list(seen))
    followed = [each for one in seen.values() for each in one.followed]
    return Overview(tuple(followed), tuple(versions), failures)


async def _follow(place: Place, application: str, group: str, ring: KeyRing | None) -> Followed:
    written = await reading.read_pointer(place, application, group)
    info = await place.store.head(written.key) if written.text else None
    problem = written.problem
    if written.manifest is not None and ring is not None:
        problem = await _doubt(place, written, application, ring)
    return Followed(
        environment=place.environment,
        target=place.target.name,
        group=group,
        manifest=written.manifest,
        since=info.modified if info else 0.0,
        problem=problem,
    )


async def _doubt(
    place: Place, written: Written, application: str, ring: KeyRing
) -> AgentError | None:
    try:
        await reading.ensure_signed(place, written, application, ring)
    except AgentError as error:
        return error
    return None


def _versions(seen: Mapping[Place, _Seen]) -> list[Version]:
    """The versions that the indexes name, by when they were published last."""
    found: dict[str, Version] = {}
    for place, one in seen.items():
        for info in one.indexed:
            name = layout.indexed_version(info.key)
            if not name:
                continue
            version = found.setdefault(name, Version(name))
            version.published = max(version.published, info.modified)
            version.where.setdefault(place.environment, []).append(place.target.name)
    return sorted(found.values(), key=lambda each: (each.published, each.version), reverse=True)


async def _describe(versions: list[Version], application: str, seen: list[Place]) -> None:
    """Add each version's manifest, from a place that has it."""
    wanted: dict[Place, list[Version]] = {}
    for version in versions:
        knows = version.where
        place = next(p for p in seen if p.target.name in knows.get(p.environment, ()))
        wanted.setdefault(place, []).append(version)

    async def work(place: Place) -> None:
        for version in wanted[place]:
            written = await reading.read_index(place, application, version.version)
            version.manifest = written.manifest

    await places.at_each(list(wanted), work)
