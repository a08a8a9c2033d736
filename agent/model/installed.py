"""A file, folder or link that a committed revision put on this host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A path that a committed revision of an application owns on this host.

    kind:   file, dir or link.
    digest: sha256 of the content; of the target for a link; b"" for a dir.
    """

    path: str
    application: str
    kind: str
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    digest: bytes
