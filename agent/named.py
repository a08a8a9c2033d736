"""What a person names: a revision by a path on this host, an application; what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from agent.equipment import Equipment
from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code, NotFound
from agent.sources import sidecar
from agent.store.state import State

KEYS = {"bundle", "application", "version", "group", "unsigned"}
"""The keys of a request that name a revision."""

_NAMED = re.compile(r"^(?P<application>.+?)[-_]v?(?P<version>\d.*)$")


async def find_revision(equipment: Equipment, body: dict[str, Any]) -> Revision:
    """The revision of a request: {bundle, application?, version?, group?, unsigned?}.

    unsigned: why a bundle without a checked signature may be deployed where there are keys.
    Raises AgentError (BAD_REQUEST, MANIFEST_REFUSED), NotFound.
    """
    bundle = body.get("bundle")
    if not isinstance(bundle, str) or not bundle.startswith("/"):
        raise bad_request("bundle is not an absolute path")
    path = Path(bundle)
    if not await asyncio.to_thread(path.exists):
        raise NotFound(
            f"cannot deploy {bundle}: there is no such file or folder on this host",
            code=Code.BUNDLE_MISSING,
            remedy="Name a zip, tar or tgz, or a folder with an appspec.yml",
        )
    stem = re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", path.name, flags=re.IGNORECASE)
    named = _NAMED.match(stem)
    application = body.get("application") or (named["application"] if named else stem)
    version = body.get("version") or (named["version"] if named else stem)
    revision = Revision(
        application=check_name(application, "application"),
        group=check_name(body.get("group") or await equipment.group.name(), "group"),
        version=check_name(version, "version"),
        bundle=bundle,
    )
    unsigned = body.get("unsigned")
    if unsigned is None:
        return await asyncio.to_thread(
            sidecar.described, revision, equipment.gate, is_ordered=False
        )
    if not isinstance(unsigned, str) or not unsigned.strip():
        raise bad_request("unsigned needs a reason")
    return revision


def check_name(value: object, what: str) -> str:
    """A name that can become a folder, part of a log line and an environment variable."""
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._+~:@-]{0,127}", value
    ):
        raise bad_request(
            f"{what} {value!r} is not a name: letters, digits and ._+~:@- , at most 128"
        )
    return value


def bad_request(cause: str) -> AgentError:
    """The error for a request that cannot be understood."""
    return AgentError(
        f"cannot do what was asked: {cause}", code=Code.BAD_REQUEST, remedy="See docs/api.md"
    )


async def choose_application(state: State, asked: object, known: list[str] | None = None) -> str:
    """The application that was asked for, or the only one of `known`, of the committed if None.

    Raises AgentError.
    """
    if asked is not None:
        everyone = await asyncio.to_thread(state.applications)
        if asked not in everyone:
            raise _unknown_application(str(asked), everyone)
        return str(asked)
    if known is None:
        known = await asyncio.to_thread(state.committed)
    if len(known) > 1:
        raise AgentError(
            "cannot tell which application is meant",
            code=Code.BAD_REQUEST,
            details=(f"on this host: {', '.join(known)}",),
            remedy="Name one of them",
        )
    if not known:
        raise NotFound(
            "cannot find an application: nothing is deployed on this host yet",
            code=Code.NOT_FOUND,
            remedy="Deploy something: agentctl deploy BUNDLE",
        )
    return known[0]


def _unknown_application(name: str, known: list[str]) -> NotFound:
    return NotFound(
        f"cannot find application {name!r} on this host",
        code=Code.NOT_FOUND,
        details=(f"known here: {', '.join(known) or 'none'}",),
        remedy="See: agentctl status",
    )
