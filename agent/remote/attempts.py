"""Trying again: how often, and how long to wait in between."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.model.errors import TransientError
from agent.model.transfer import Patience

T = TypeVar("T")


class Attempts:
    """Counts the failures in a row, and waits longer after each: half of it by chance.

    By chance, so that a hundred hosts that failed together do not come back together.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failed = 0

    def begin_anew(self) -> None:
        """Something was gained: what failed before does not count."""
        self._failed = 0

    async def pause(self, error: TransientError) -> None:
        """Wait before the next attempt; raises `error` where there is none.

        The other side's Retry-After is kept to: a longer one than we wait for ends it here.
        """
        self._failed += 1
        patience = self._patience
        if self._failed >= patience.attempts or error.retry_after > patience.longest_pause:
            if self._failed > 1:
                error.details = (*error.details, f"tried {self._failed} times")
            raise error
        longest = min(patience.longest_pause, patience.first_pause * 2 ** (self._failed - 1))
        await asyncio.sleep(max(error.retry_after, longest * random.uniform(0.5, 1.0)))  # noqa: S311


async def try_again(patience: Patience, attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` gives, once it does; raises its last TransientError, or any other at once."""
    attempts = Attempts(patience)
    while True:
        try:
            return await attempt()
        except TransientError as error:
            await attempts.pause(error)


def briefly(patience: Patience) -> Patience:
    """For small reads that are repeated anyhow."""
    return dataclasses.replace(patience, attempts=patience.reads)
