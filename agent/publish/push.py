"""Publishes a bundle that lies here as a file to an environment."""

from __future__ import annotations

from pathlib import Path

from agent.model.errors import AgentError, Code
from agent.publish import deliver, places
from agent.publish.deliver import Order
from agent.publish.results import Publication
from agent.publish.telling import Teller


async def push(order: Order, bundle: Path, teller: Teller) -> Publication:
    """Publish the bundle that `order.described` describes. Raises AgentError."""
    environment = order.environment
    if environment.requires:
        raise AgentError(
            f"cannot push to {environment.name}: it takes only what was published in"
            f" {' or '.join(environment.requires)}",
            code=Code.CONFLICT,
            remedy=f"Push it there, then: agentctl promote {order.described.application}"
            f" --from {environment.requires[0]} --to {environment.name}",
        )

    async def fetch() -> Path:
        return bundle

    async with places.opened(environment, warn=teller.say) as opened:
        return await deliver.deliver(order, opened[environment.name], fetch, teller)
