"""What release.json says: of a bundle in its root, and, as a pointer, which bundle is desired."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BundleRef:
    """Where a bundle lies. url: absolute, or relative to the manifest's; size: in bytes."""

    url: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a bundle becomes on the disk."""

    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Compatible:
    """The hosts that a revision is for; empty: all.

    os: "debian-12", or "debian" for all its versions (ID and VERSION_ID of os-release(5)).
    arch: Debian's names, such as amd64.
    """

    os: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A release.json; what it does not say is "", 0 or None. Times are Unix seconds.

    version: of the revision, such as 1.214.
    bundle: None in a bundle's own release.json: it cannot hold its own digest.
    serial: grows with every manifest that is published to the same place.
    expires: 0.0 is never.
    """

    version: str
    application: str = ""
    deployment_group: str = ""
    bundle: BundleRef | None = None
    unpacked: Unpacked | None = None
    commit: str = ""
    built_at: float = 0.0
    serial: int = 0
    expires: float = 0.0
    compatible: Compatible = Compatible()
