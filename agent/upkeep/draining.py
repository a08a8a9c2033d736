"""agentctl drain and undrain: a person's word on whether this host takes traffic."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent import views
from agent.model.errors import Code, Conflict
from agent.model.messages import Message
from agent.store.drains import Drain
from agent.views import Json

if TYPE_CHECKING:  # only hosts with Consul load it
    from agent.upkeep.registrations import Registrations

logger = logging.getLogger(__name__)


async def drain(registrations: Registrations | None, wanted: Drain) -> Json:
    """Keep an application out of traffic. Raises NotFound, and Conflict without Consul."""
    problem = await _needed(registrations).drain(wanted)
    logger.warning(
        "%s is drained by %s: %s",
        wanted.application,
        wanted.by,
        wanted.reason,
        extra=_fields(Message.DRAINED, wanted.application),
    )
    return {"drain": views.drain_view(wanted), "problem": problem}


async def undrain(registrations: Registrations | None, application: str, *, by: str) -> Json:
    """Let an application into traffic again. Raises Conflict without Consul."""
    problem = await _needed(registrations).undrain(application)
    fields = _fields(Message.UNDRAINED, application)
    logger.info("%s is drained no more, by %s", application, by, extra=fields)
    return {"drain": None, "application": application, "problem": problem}


def _needed(registrations: Registrations | None) -> Registrations:
    if registrations is None:
        raise Conflict(
            "cannot drain: this agent does not use Consul",
            code=Code.CONFLICT,
            remedy="Add a section consul to agent.yaml, and restart the agent",
        )
    return registrations


def _fields(message: Message, application: str) -> dict[str, dict[str, str]]:
    return {"fields": {"MESSAGE_ID": message, "APPLICATION": application}}
