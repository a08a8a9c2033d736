"""Puts what one environment has before the hosts of another one: the same bytes, never rebuilt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.model.environments import Environment
from agent.model.errors import AgentError, Code
from agent.publish import deliver, places, reading
from agent.publish.deliver import Order
from agent.publish.origin import Origin
from agent.publish.results import Publication
from agent.publish.signing import Keys
from agent.publish.telling import Teller
from agent.system.keyring import KeyRing


@dataclass(frozen=True, slots=True)
class Request:
    """version: "" for the one that origin desires. ring: of origin; keys: of target.

    Where origin and target are one environment, a version is put back.
    """

    application: str
    origin: Environment
    target: Environment
    ring: KeyRing | None
    keys: Keys
    version: str = ""
    is_dry_run: bool = False
    is_partial: bool = False


def ensure_allowed(origin: Environment, target: Environment) -> None:
    """Raise AgentError where the environments file forbids this way."""
    if origin.name == target.name:
        raise AgentError(
            f"cannot promote from {origin.name} to itself",
            code=Code.BAD_REQUEST,
            remedy="To put an earlier version back: agentctl push --application NAME"
            f" --version VERSION --to {target.name}",
        )
    if target.requires and origin.name not in target.requires:
        raise AgentError(
            f"cannot promote from {origin.name} to {target.name}: it takes only what was"
            f" published in {' or '.join(target.requires)}",
            code=Code.CONFLICT,
            remedy=f"Promote it to {target.requires[0]} first",
        )


async def promote(request: Request, folder: Path, teller: Teller) -> Publication:
    """Do it; `folder` is for the bundle, where a target lacks it. Raises AgentError."""
    origin, target = request.origin, request.target
    async with places.opened(origin, target, warn=teller.say) as opened:
        source = Origin(origin.name, opened[origin.name], request.ring, teller)
        if request.version:
            described = await source.of_version(request.application, request.version)
        else:
            described = await source.desired(request.application)
        teller.say(f"{origin.name} has {described.application} {described.version}")

        async def fetch() -> Path:
            bundle = reading.bundle_of(described)
            return await source.fetch(request.application, bundle, folder)

        order = Order(
            target,
            described,
            request.keys,
            source=origin.name,
            is_dry_run=request.is_dry_run,
            is_partial=request.is_partial,
        )
        publication = await deliver.deliver(order, opened[target.name], fetch, teller)
    if origin.name != target.name:
        # none is recorded yet: say so, lest silence is taken for health
        publication.notes.append(
            f"whether {described.version} is healthy on the hosts of {origin.name} is not known"
            " here: there are no fleet records"
        )
    return publication
