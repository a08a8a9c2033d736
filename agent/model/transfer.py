"""What travels between a store and this host, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A small object. body: None where it is still the one that the asked-with etag named.

    etag is what to ask with the next time; it never is a digest of anything.
    """

    body: bytes | None
    etag: str = ""
    version_id: str = ""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a store, without its content. modified: Unix seconds, 0.0 where unknown."""

    key: str
    size: int
    etag: str = ""
    version_id: str = ""
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A download that is complete. sha256: of the bytes on the disk, in hexadecimal."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class S3Place:
    """A bucket and a prefix in it, and how to get there; "" leaves it to the environment.

    url:      s3://bucket/prefix
    region:   of the bucket.
    endpoint: of a store other than AWS: http://127.0.0.1:8333
    profile:  a section of ~/.aws/config or ~/.aws/credentials.
    role_arn: a role to assume with what the profile or the environment gives.
    """

    url: str
    region: str = ""
    endpoint: str = ""
    path_style: bool = False
    profile: str = ""
    role_arn: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer goes on. Times are seconds.

    attempts: in a row that brought less than 1 MiB; a download that gets on goes on.
    reads: attempts of a small read.
    first_pause, longest_pause: between attempts; each is twice the one before, with jitter. A store
        that asks for a longer pause (Retry-After) is left alone by this transfer.
    connect, stall: to connect; without a single byte.
    slow_bytes, slow_seconds: fewer bytes than this in as many seconds are too slow.
    """

    attempts: int = 6
    reads: int = 3
    first_pause: float = 0.5
    longest_pause: float = 60.0
    connect: float = 10.0
    stall: float = 30.0
    slow_bytes: int = 512 * 1024
    slow_seconds: float = 60.0
