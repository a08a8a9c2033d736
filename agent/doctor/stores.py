"""Sources in stores: what their pointer desires, asked for as the agent asks; and the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from agent.client import Client
from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.deployment import Revision
from agent.model.errors import AgentError
from agent.model.settings import SourceSettings
from agent.sources.gate import Gate
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys
from agent.sources.pointer import PointerSource
from agent.system.keyring import KeyRing

_ASK_SECONDS = 6.0
_AGENT_SECONDS = 3.0


def look_at_store(source: SourceSettings, host: Host) -> Iterator[Finding]:
    """Whether the pointer can be read, and what is desired by it.

    An agent that runs is asked: it has credentials that this shell may lack, or have others of.
    """
    name = f"{source.type} {source.url} ({source.application})"
    told = _told_by_agent(name, host)
    if told is not None:
        if not told["problem"]:  # else it is said of the agent
            yield finding.ok(f"{name} answers the agent: {told['decision']}")
        return
    if not host.is_root and host.is_system:
        yield finding.unknown(f"{name} is asked with what only the agent's user may read")
        return
    try:
        [desired] = asyncio.run(_ask(source, host))
    except AgentError as error:
        yield finding.problem(f"{name}: {error.message}", error.remedy)
    except TimeoutError:
        text = f"{name}: no answer within {_ASK_SECONDS:g} s"
        yield finding.problem(text, f"See whether this host can reach it: curl -v {source.url}")
    else:
        yield finding.ok(
            f"{name} answers: {desired.version} is desired by the group {desired.group},"
            f" {desired.size} bytes, {_signed(desired)}"
        )


def look_at_keys(host: Host) -> Iterator[Finding]:
    """Whose revisions this host accepts."""
    folder = host.settings.keys_dir
    try:
        ring = KeyRing.load(folder)
    except AgentError as error:
        if not host.is_root and host.is_system:
            yield finding.unknown(f"{folder} may not be read by this user")
        else:
            yield finding.problem(error.message, error.remedy)
        return
    if ring.is_empty:
        yield finding.warning(
            f"{folder} has no key: whoever may write to a store that is a source here decides what"
            " runs on this host",
            "Sign what you publish: agentctl key generate, and put the .pub there",
        )
    else:
        yield finding.ok(f"signed by one of {', '.join(ring.ids)} is accepted, nothing else")


def _told_by_agent(name: str, host: Host) -> dict[str, str] | None:
    """What the agent that runs says of a source; None where none answers, or knows it."""
    client = Client(str(host.socket), _AGENT_SECONDS)
    try:
        told = client.call("GET", "/v1/status")["agent"]["sources"]
    except AgentError:
        return None
    return next((each for each in told if each["source"] == name), None)


async def _ask(source: SourceSettings, host: Host) -> list[Revision]:
    settings = host.settings
    gate = Gate(Keys(settings.keys_dir), seen=lambda *_: 0, remember=lambda *_: None)
    asked = PointerSource(source, gate, HostGroup(settings))
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await asked.desired()
    finally:
        await asked.close()


def _signed(desired: Revision) -> str:
    return f"signed by {desired.signed_by}" if desired.signed_by else "not signed"
