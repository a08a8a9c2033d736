"""Fetches the bundles that lie in a store, by the source that named them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code
from agent.system.cancel import Cancel

if TYPE_CHECKING:
    from agent.model.transfer import Fetched
    from agent.remote.stores import Store


class Holder(Protocol):
    """A source that has bundles in a store."""

    async def store_of(self, revision: Revision) -> tuple[Store, str] | None:
        """The store and key of a revision's bundle, None if it is not one of this source's."""


class Bundles:
    """What the fetch step is given."""

    def __init__(self, sources: Sequence[Holder]) -> None:
        self._sources = sources

    async def fetch(
        self,
        revision: Revision,
        target: Path,
        *,
        limit_bytes: int,
        cancel: Cancel,
        progress: Callable[[int, int], None],
    ) -> Fetched:
        """Stream a revision's bundle to `target`; what is there already of it is gone on with.

        Raises AgentError; TransientError for what may be had later. The caller checks the digest.
        """
        async with contextlib.AsyncExitStack() as stack:
            store, key = await self._find(revision, stack)
            return await store.download(
                key,
                target,
                size=revision.size,
                limit_bytes=limit_bytes,
                cancel=cancel,
                progress=progress,
            )

    async def _find(
        self, revision: Revision, stack: contextlib.AsyncExitStack
    ) -> tuple[Store, str]:
        """The store and key of the bundle; a store that is of no source is closed by `stack`."""
        for source in self._sources:
            found = await source.store_of(revision)
            if found is not None:
                return found
        parts = urlsplit(revision.bundle)
        if parts.scheme not in ("http", "https"):
            raise AgentError(
                f"cannot fetch {revision.bundle}: no source of agent.yaml knows this place",
                code=Code.BUNDLE_MISSING,
                remedy="Add the source that it lies in, then run: agentctl retry",
            )
        from agent.remote import stores  # imported here: 1 MB, only where there is one

        # no token is given to a place that only a manifest names
        store = stores.open_http(f"{parts.scheme}://{parts.netloc}")
        stack.push_async_callback(store.close)
        return store, parts.path.lstrip("/")
