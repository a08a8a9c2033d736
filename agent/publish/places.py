"""An environment's targets with their stores open, and work at all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from agent.model.environments import Environment, Target
from agent.model.errors import AgentError
from agent.remote import stores

T = TypeVar("T")

_AT_ONCE = 6  # uploads share one line, and each holds a piece in memory


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A target with its open store."""

    environment: str
    target: Target
    store: stores.WritableStore

    @property
    def name(self) -> str:
        """For messages: production/prod-eu."""
        return f"{self.environment}/{self.target.name}"


@asynccontextmanager
async def opened(
    *environments: Environment, warn: Callable[[str], None]
) -> AsyncIterator[dict[str, tuple[Place, ...]]]:
    """The places of each environment by its name; their stores are closed at the end.

    warn: is told what works, but had better be set otherwise. Raises AgentError for a place that
    cannot be one.
    """
    async with AsyncExitStack() as closing:
        found: dict[str, tuple[Place, ...]] = {}
        for environment in dict.fromkeys(environments):
            places = []
            for target in environment.targets:
                store = stores.open_s3(target.place, warn=warn)
                closing.push_async_callback(store.close)
                places.append(Place(environment.name, target, store))
            found[environment.name] = tuple(places)
        yield found


async def at_each(
    places: Sequence[Place], work: Callable[[Place], Awaitable[T]]
) -> dict[Place, T | AgentError]:
    """Do the work at every place, a few at a time; one that fails stops no other."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def do(place: Place) -> T | AgentError:
        async with limit:
            try:
                return await work(place)
            except AgentError as error:
                return error

    async with asyncio.TaskGroup() as group:
        running = {place: group.create_task(do(place)) for place in places}
    return {place: each.result() for place, each in running.items()}
