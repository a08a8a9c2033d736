"""Locks of the group: a key that a session with a TTL holds, and who holds it in its value.

https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions: a session that is not
renewed ends after its TTL, at most twice that, and its key is free when a delay is over as well.
So its holder cannot know that it still has it; it can only know when it has not.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.model.consul import KvEntry
from agent.model.errors import AgentError

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.keys import Keys

DELAY_SECONDS = 15.0  # for who has lost it, and does not know that yet


@dataclass(frozen=True, slots=True)
class Lock:
    """A key, and the session that holds it."""

    key: str
    session: str


async def take(
    keys: Keys, wanted: Iterable[str], value: bytes, *, name: str, ttl_seconds: float
) -> Lock | None:
    """Hold the first of the wanted keys that can be had, and write its value; None for none.

    name: of the session, for people. Raises AgentError.
    """
    session = await keys.create_session(
        name, ttl_seconds=ttl_seconds, lock_delay_seconds=DELAY_SECONDS
    )
    for key in wanted:
        if await keys.acquire(key, value, session):
            return Lock(key, session)
    await keys.destroy_session(session)
    return None


async def release(keys: Keys, lock: Lock) -> None:
    """Let others have it at once: one that is not lost has no delay. What fails ends by its TTL."""
    with contextlib.suppress(AgentError):
        await keys.release(lock.key, b"", lock.session)
        await keys.destroy_session(lock.session)


def parse(entry: KvEntry) -> dict[str, Any]:
    """What is in a key of ours; nothing of what somebody else has written there."""
    try:
        found = json.loads(entry.value or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
