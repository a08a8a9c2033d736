"""What tests of stores share: little patience, and a download in one line."""

from __future__ import annotations

from pathlib import Path

from agent.model.transfer import Fetched, Patience
from agent.remote.stores import Store
from agent.system.cancel import Cancel

HASTY = Patience(
    attempts=3,
    first_pause=0.01,
    longest_pause=2.0,
    connect=2.0,
    stall=0.3,
    slow_bytes=1000,
    slow_seconds=0.5,
)
# for a real server, which may be slow on a busy machine
PATIENT = Patience(attempts=3, first_pause=0.01, longest_pause=2.0)


async def fetch(
    store: Store,
    key: str,
    target: Path,
    *,
    size: int = 0,
    limit_bytes: int = 2**30,
    version_id: str = "",
    cancel: Cancel | None = None,
) -> Fetched:
    return await store.download(
        key,
        target,
        size=size,
        version_id=version_id,
        limit_bytes=limit_bytes,
        cancel=cancel or Cancel(),
        progress=lambda done, total: None,
    )
