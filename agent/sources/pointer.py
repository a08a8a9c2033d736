"""A pointer as source: a small manifest in a store names what is desired."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from agent.formats import manifest
from agent.model.deployment import Deployment, Revision
from agent.model.errors import AgentError, Code, NotFound, from_os_error
from agent.model.settings import SourceSettings, SourceType
from agent.model.transfer import Patience, S3Place
from agent.remote import stores
from agent.remote.github_store import is_release_url
from agent.remote.stores import Store
from agent.sources.gate import Admitted, Gate, Offer
from agent.sources.groups import HostGroup

logger = logging.getLogger(__name__)

_POINTER = "release.json"
# a pointer that cannot be read is asked for again by the poller, which spreads many agents
_PATIENCE = Patience(reads=1)
_SIGNATURE_BYTES = 64 * 2**10
_LONGEST_PAUSE_SECONDS = 120.0


class PointerSource:
    """One application's pointer, asked for by ETag; its bundle is fetched only when it changes.

    poll_seconds, longest_pause_seconds: between two questions, and after many that failed.
    """

    def __init__(self, settings: SourceSettings, gate: Gate, group: HostGroup) -> None:
        self.poll_seconds = settings.poll_seconds
        self.longest_pause_seconds = max(_LONGEST_PAUSE_SECONDS, self.poll_seconds)
        self._settings = settings
        self._gate = gate
        self._host_group = group
        self._store: Store | None = None
        self._etag = ""
        self._pointer = ""
        self._offer: Offer | None = None

    def __str__(self) -> str:
        return f"{self._settings.type} {self._settings.url} ({self._settings.application})"

    async def desired(self) -> list[Revision]:
        """What the pointer names. Raises AgentError, also for one that this host refuses."""
        group = self._settings.group or await self._host_group.name()
        store = await self._open()
        pointer = self._place(group)
        if pointer != self._pointer:
            self._pointer, self._etag, self._offer = pointer, "", None
        try:
            answer = await store.read(
                pointer, etag=self._etag, limit_bytes=manifest.POINTER_MAX_BYTES
            )
            if answer.body is not None or self._offer is None:
                self._offer = await self._read_offer(store, pointer, group, answer.body or b"")
            # also what was accepted before: it may have expired, or its key was taken away
            admitted = await asyncio.to_thread(self._gate.admit, self._offer)
        except NotFound as error:
            raise AgentError(
                f"{error.message}: nothing is published there for the group {group}",
                code=Code.SOURCE_UNAVAILABLE,
                remedy="Publish it (agentctl push), or correct sources: in agent.yaml",
            ) from error
        except AgentError as error:
            self._etag = ""  # read anew, its signature too
            if error.code is Code.SOURCE_DENIED:
                await self.close()  # the next question reads token and credentials anew
            raise
        self._etag = answer.etag
        return [self._revision(store, pointer, group, admitted)]

    async def report(self, deployment: Deployment) -> None:
        """A store is told nothing: the outcome is in the agent's state and log."""

    async def close(self) -> None:
        """Close its connections; the next question opens them again."""
        if self._store is not None:
            await self._store.close()
            self._store = None

    async def store_of(self, revision: Revision) -> tuple[Store, str] | None:
        """The store and key of a revision's bundle, None if it is not one of this source's."""
        if revision.application != self._settings.application:
            return None
        store = await self._open()
        base = store.url_of("x").removesuffix("x")
        if not revision.bundle.startswith(base):
            return None
        return store, unquote(revision.bundle.removeprefix(base))

    async def _read_offer(self, store: Store, pointer: str, group: str, text: bytes) -> Offer:
        signature = None
        if await asyncio.to_thread(self._gate.keys.wants_signature):
            signature = await _read_signature(store, pointer, text)
        return Offer(
            name=store.url_of(pointer),
            text=text,
            signature=signature,
            application=self._settings.application,
            group=group,
        )

    def _revision(self, store: Store, pointer: str, group: str, admitted: Admitted) -> Revision:
        found = admitted.manifest
        assert found.bundle is not None  # a pointer has one
        return Revision(
            application=self._settings.application,
            group=group,
            version=found.version,
            bundle=_bundle_url(store, pointer, found.bundle.url),
            digest=found.bundle.sha256,
            identity=f"{self._settings.application} {group} manifest {admitted.digest}",
            size=found.bundle.size,
            commit=found.commit,
            signed_by=admitted.signed_by,
        )

    def _place(self, group: str) -> str:
        """The key of the pointer, relative to the store."""
        settings = self._settings
        if settings.type is SourceType.S3:
            return f"{settings.application}/{group}/{_POINTER}"
        if is_release_url(settings.url):
            return _POINTER
        return urlsplit(self._filled(group)).path.lstrip("/")

    def _filled(self, group: str) -> str:
        url = self._settings.url.replace("{application}", self._settings.application)
        url = url.replace("{group}", group)
        return url if url.endswith(".json") else f"{url}/{_POINTER}"

    async def _open(self) -> Store:
        if self._store is None:
            settings = self._settings
            if settings.type is SourceType.S3 and not (settings.region or settings.endpoint):
                settings = replace(settings, region=await self._host_group.region())
            self._store = await asyncio.to_thread(_open_store, settings)
        return self._store


def _open_store(settings: SourceSettings) -> Store:
    if settings.type is SourceType.S3:
        place = S3Place(
            url=settings.url,
            region=settings.region,
            endpoint=settings.endpoint,
            path_style=settings.path_style,
            profile=settings.profile,
            role_arn=settings.role_arn,
        )
        return stores.open_s3(place, patience=_PATIENCE, warn=logger.warning)
    token = _read_token(settings.token_file) if settings.token_file else ""
    if is_release_url(settings.url):
        return stores.open_http(settings.url, token=token, patience=_PATIENCE)
    parts = urlsplit(settings.url)
    return stores.open_http(f"{parts.scheme}://{parts.netloc}", token=token, patience=_PATIENCE)


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error if isinstance(error, OSError) else OSError(0, "it is no UTF-8 text")
        raise from_os_error(
            cause,
            f"read the token {path}",
            code=Code.CONFIG_INVALID,
            remedy="Write the token into it, readable for the agent alone (mode 0600)",
        ) from error


async def _read_signature(store: Store, pointer: str, text: bytes) -> bytes | None:
    """The signature of exactly this text, else the one that lies beside the pointer."""
    folder, _, _ = pointer.rpartition("/")
    digest = hashlib.sha256(text).hexdigest()
    own = f"{folder}/{digest}.minisig" if folder else f"{digest}.minisig"
    for key in (own, f"{pointer}.minisig"):
        try:
            return (await store.read(key, limit_bytes=_SIGNATURE_BYTES)).body
        except NotFound:
            continue
    return None


def _bundle_url(store: Store, pointer: str, url: str) -> str:
    """Where the bundle lies: what the manifest says is relative to the pointer."""
    if "://" in url:
        return url
    # resolved as a path: urljoin knows nothing of s3://
    path = urljoin(f"/{pointer}", url).lstrip("/")
    return store.url_of(path)
