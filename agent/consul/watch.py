"""Watching a prefix of keys by blocking queries.

https://developer.hashicorp.com/consul/api-docs/features/blocking: an index that goes backwards
starts again at 0, a return is no change, and the loop limits its own rate.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from agent.model.consul import KvSnapshot
from agent.model.errors import AgentError
from agent.model.messages import Message

logger = logging.getLogger(__name__)

WAIT_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.25
_LAST_PAUSE_SECONDS = 30.0
_SAY_AGAIN_SECONDS = 3600.0
# a bucket of so many questions, filled again one by one
_BURST = 4
_REFILL_SECONDS = 0.25


class PrefixWatch:
    """An iterator without an end: the first snapshot, then one after each change of a value.

    Consul away, denied or without a leader is no change: it waits, longer each time, and
    `problem` says why. Changes in quick succession may come as one. An empty snapshot is Consul's
    true answer, but a Consul that began anew gives it too: what had values and has none is for the
    reader to doubt.
    """

    def __init__(
        self, prefix: str, read: Callable[[int, float], Awaitable[KvSnapshot | None]]
    ) -> None:
        self.prefix = prefix
        self.problem: AgentError | None = None
        self._read = read
        self._index = 0
        self._last: KvSnapshot | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._said: tuple[str, float] = ("", 0.0)
        self._tokens, self._filled = float(_BURST), time.monotonic()

    def __aiter__(self) -> PrefixWatch:
        return self

    async def __anext__(self) -> KvSnapshot:
        while True:
            await self._take_token()
            try:
                snapshot = await self._read(self._index, WAIT_SECONDS)
            except AgentError as error:
                # a Consul that came back empty would keep a question with its old index for long
                self._index = 0
                await self._rest(error)
                continue
            self._recovered()
            if snapshot is None:
                continue
            if snapshot.index < self._index:
                # reset, restored, or a new leader that has not read its own log yet and knows of
                # no key: asked again from the start, where the answer is a quorum's
                self._index = 0
                continue
            self._index = max(snapshot.index, 1)
            if self._last is None or snapshot.values != self._last.values:
                self._last = snapshot
                return snapshot

    async def _take_token(self) -> None:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._filled) / _REFILL_SECONDS)
        self._filled = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) * _REFILL_SECONDS)
        self._tokens -= 1

    async def _rest(self, error: AgentError) -> None:
        self.problem = error
        said, when = self._said
        if said != error.message or time.monotonic() - when > _SAY_AGAIN_SECONDS:
            logger.warning("%s", error.message, extra=_kind(Message.CONSUL_PROBLEM))
            self._said = (error.message, time.monotonic())
        # jitter: a fleet must not come back in step
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311
        self._pause = min(self._pause * 2, _LAST_PAUSE_SECONDS)

    def _recovered(self) -> None:
        if self.problem is not None:
            logger.info(
                "the keys below %s in Consul can be read again",
                self.prefix,
                extra=_kind(Message.CONSUL_RECOVERED),
            )
            self.problem = None
        self._said = ("", 0.0)
        self._pause = _FIRST_PAUSE_SECONDS


def _kind(message: Message) -> dict[str, dict[str, str]]:
    return {"fields": {"MESSAGE_ID": message}}
