"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.01


def wait_until(predicate: Callable[[], T], seconds: float = 5.0) -> T:
    """What predicate() gave once it is true; raise TimeoutError naming it after `seconds`."""
    deadline = time.monotonic() + seconds
    never = threading.Event()
    while not (found := predicate()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds} s: {predicate}")
        never.wait(_POLL_SECONDS)
    return found


async def wait_until_async(predicate: Callable[[], object], seconds: float = 5.0) -> None:
    """wait_until for code on the event loop; predicate must not block."""
    async with asyncio.timeout(seconds):
        while not predicate():  # noqa: ASYNC110 - it may look at files and processes
            await asyncio.sleep(_POLL_SECONDS)
