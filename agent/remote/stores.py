"""What every store can do, and how to open one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agent.model.errors import AgentError, Code
from agent.model.transfer import Answer, Fetched, ObjectInfo, Patience, S3Place
from agent.remote.github_store import GithubStore, is_release_url
from agent.remote.http_store import HttpStore
from agent.system.cancel import Cancel

Progress = Callable[[int, int], None]


class Store(Protocol):
    """Objects under keys, relative to the store's base. Everything raises AgentError.

    NotFound where there is no such object; TransientError where it is worth another try.
    """

    def url_of(self, key: str) -> str:
        """Where it lies, without secrets: for messages."""

    async def read(self, key: str, *, etag: str = "", limit_bytes: int = 2**20) -> Answer:
        """A small object; its body is None where it still is the one that `etag` names."""

    async def download(
        self,
        key: str,
        target: Path,
        *,
        version_id: str = "",
        size: int = 0,
        limit_bytes: int,
        cancel: Cancel,
        progress: Progress,
    ) -> Fetched:
        """An object to the disk, in constant memory; the caller syncs and renames it.

        Goes on with what an earlier attempt left in target, also one before a restart, where that
        is of the same object. size: what it must be, 0 where it is not known. progress: called
        with (done, total) in bytes, on the loop; a total of 0 is not known.
        """

    async def close(self) -> None:
        """Close its connections."""


class WritableStore(Store, Protocol):
    """One that can be published to."""

    async def head(self, key: str) -> ObjectInfo | None:
        """What is under a key, None where nothing is."""

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        replaces: str | None = None,
    ) -> ObjectInfo:
        """A small object, as a whole: a reader finds the old one or the new one.

        replaces: the etag of what may be there now, "" for nothing; None for anything. Raises
        Conflict where something else is there, which may be what this very call wrote: a lost
        answer is asked for again.
        """

    async def upload(
        self, key: str, source: Path, *, sha256: str, progress: Progress
    ) -> ObjectInfo:
        """A file, in constant memory. It fails where the file has another digest than sha256."""

    async def list(self, prefix: str, *, limit: int = 1000) -> list[ObjectInfo]:
        """What is under a prefix, by key, at most `limit` of it."""


def open_http(base_url: str, *, token: str = "", patience: Patience | None = None) -> Store:
    """A web server, or the assets of a GitHub release; raises AgentError for such a URL.

    token: sent to base_url's own host and port only. GitHub: https://api.github.com/repos/<owner>/
    <repository>/releases/latest, or …/releases/tags/<tag>; on GitHub Enterprise below /api/v3.
    """
    kind = GithubStore if is_release_url(base_url) else HttpStore
    return kind(base_url, token=token, patience=patience or Patience())


def open_s3(
    place: S3Place,
    *,
    patience: Patience | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> WritableStore:
    """An S3 bucket; raises AgentError where the place cannot be one, or botocore is missing.

    warn: is told what works, but had better be set otherwise, such as a wrong region.
    """
    if importlib.util.find_spec("botocore") is None:
        raise AgentError(
            f"cannot use {place.url}: S3 needs botocore, which is not installed",
            code=Code.CONFIG_INVALID,
            remedy="apt-get install python3-botocore",
        )
    from agent.remote.s3_store import S3Store  # only where S3 is used: XML, and later botocore

    return S3Store(place, patience=patience or Patience(), warn=warn)
