"""What a request to the API names: a revision by its path, an application, a reason and an end."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

from agent.equipment import Equipment
from agent.model.deployment import Revision
from agent.model.errors import AgentError, Code, NotFound
from agent.sources import sidecar

KEYS = {"bundle", "application", "version", "group", "unsigned"}
"""The keys of a request that name a revision."""

_LONGEST_SECONDS = 10 * 365.25 * 86400.0
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
            f"cannot read {bundle}: there is no such file or folder on this host",
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
        return await asyncio.to_thread(sidecar.checked, revision, equipment.keys)
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


def choose_application(asked: object, known: list[str], everyone: list[str]) -> str:
    """The application that was asked for, of `everyone`; None asks for the only one of `known`.

    Raises AgentError (BAD_REQUEST, or NOT_FOUND).
    """
    if asked is not None:
        if asked not in everyone:
            raise NotFound(
                f"cannot find application {str(asked)!r} on this host",
                code=Code.NOT_FOUND,
                details=(f"known here: {', '.join(everyone) or 'none'}",),
                remedy="See: agentctl status",
            )
        return str(asked)
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


def reason_and_end(body: dict[str, Any]) -> tuple[str, float | None]:
    """Why something is asked for, and until when (Unix seconds; None without an end)."""
    reason, seconds = body.get("reason"), body.get("for_seconds")
    if not isinstance(reason, str) or not reason.strip():
        raise bad_request("it needs a reason")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds <= _LONGEST_SECONDS):
        raise bad_request("for_seconds is not a number above 0, of 10 years at most")
    return reason, None if seconds is None else time.time() + seconds
