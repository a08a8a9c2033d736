"""What differs between two revisions that were published: their manifests, and their files."""

from __future__ import annotations

import asyncio
import zipfile
from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest
from agent.publish import reading
from agent.publish.origin import Origin


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. label: what people know it by: production, or a version."""

    label: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that differs. Sizes are unpacked; None where there is no such file."""

    name: str
    old_size: int | None
    new_size: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """files: by name; empty where both have the same bundle."""

    old: Side
    new: Side
    files: tuple[FileChange, ...]

    @property
    def is_same(self) -> bool:
        """Whether both are the same bundle under the same version."""
        one, two = self.old.manifest, self.new.manifest
        return one.version == two.version and one.bundle == two.bundle


async def compare(old: Side, new: Side, origins: tuple[Origin, Origin], folder: Path) -> Difference:
    """Compare them; origins: where each one's bundle is, `folder`: where to put it meanwhile.

    Raises AgentError.
    """
    one, two = reading.bundle_of(old.manifest), reading.bundle_of(new.manifest)
    if one.sha256 == two.sha256:
        return Difference(old, new, ())
    paths = [
        await origin.fetch(side.manifest.application, reading.bundle_of(side.manifest), folder)
        for side, origin in zip((old, new), origins, strict=True)
    ]
    return Difference(old, new, await asyncio.to_thread(changes, *paths))


def changes(old: Path, new: Path) -> tuple[FileChange, ...]:
    """The files of two zips that differ in name, size or checksum, by name. Raises AgentError."""
    one, two = _files(old), _files(new)
    return tuple(
        FileChange(
            name,
            one[name].file_size if name in one else None,
            two[name].file_size if name in two else None,
        )
        for name in sorted(one.keys() | two.keys())
        if _content(one.get(name)) != _content(two.get(name))
    )


def _content(member: zipfile.ZipInfo | None) -> tuple[int, int, int] | None:
    """What tells two files apart: size, CRC-32, and the bits of the mode."""
    if member is None:
        return None
    return (member.file_size, member.CRC, member.external_attr >> 16)


def _files(bundle: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(bundle) as archive:
            return {each.filename: each for each in archive.infolist() if not each.is_dir()}
    except (zipfile.BadZipFile, OSError) as error:
        raise AgentError(
            f"cannot read {bundle.name}: {error}",
            code=Code.BUNDLE_DAMAGED,
            remedy="Publish that version again",
        ) from error
