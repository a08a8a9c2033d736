"""Whether a manifest may be deployed on this host now: by whom it is meant, its time and serial.

Its signature is checked before, and says only that the key's owner once wrote it: not that it is
for here, nor that it is the newest. That is decided here.
"""

from __future__ import annotations

import time

from agent.formats import wording
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest

CLOCK_SECONDS = 3600.0
"""A host's clock that is further behind cannot tell whether anything has expired."""
SERIAL_AHEAD_SECONDS = 86400.0
"""Serials are Unix seconds, or a few more: so nobody can use up those of the years to come."""

_RENEW = "Publish it again, which renews it, by: agentctl push (or agentctl promote)"


def admit(
    manifest: Manifest,
    *,
    application: str,
    group: str,
    now: float,
    highest_serial: int,
    os_id: str,
    arch: str,
    signed: bool,
) -> None:
    """Raises AgentError (MANIFEST_REFUSED) unless this manifest may be deployed here.

    application, group: whose pointer was asked for. now: Unix seconds.
    highest_serial: the highest that was ever admitted from there, 0 for none. The same is no
    lower one: it is the same manifest, asked for again.
    os_id, arch: of this host, as `system.os_release` reads them.
    signed: whether a signature was checked; a signed manifest has to say everything.
    """
    _check_meant(manifest, application, group, signed=signed)
    _check_time(manifest, now)
    _check_serial(manifest, highest_serial, now)
    _check_compatible(manifest, os_id, arch)


def _check_meant(manifest: Manifest, application: str, group: str, *, signed: bool) -> None:
    if manifest.application != application:
        raise _refused(
            f"cannot follow the pointer of {application}: its manifest is of {_name(manifest)}",
            f"Publish {application} there again; if nobody put {manifest.application} there by"
            " mistake, somebody moved it: look at who may write to the store",
        )
    if manifest.deployment_group != group and (signed or manifest.deployment_group):
        other = manifest.deployment_group
        raise _refused(
            f"cannot follow the pointer of {application} for the deployment group {group}:"
            f" its manifest is for {f'the group {other}' if other else 'no group'}",
            f"Publish it for {group}, or set deployment_group in agent.yaml",
        )
    missing = [
        key
        for key, value in (("serial", manifest.serial), ("expires", manifest.expires))
        if signed and not value
    ]
    if missing:
        raise _refused(
            f"cannot deploy {_name(manifest)}: its manifest is signed and has no"
            f" {wording.listed(missing)}, so an old one could be put back for ever",
            "Publish it by agentctl push, which writes both",
        )


def _check_time(manifest: Manifest, now: float) -> None:
    if manifest.built_at > now + CLOCK_SECONDS:
        raise _refused(
            f"cannot deploy {_name(manifest)}: it was built {_when(manifest.built_at)}, and this"
            f" host's clock says {_when(now)}",
            "Set the clock of whichever is wrong; on this host, see: timedatectl",
        )
    if manifest.expires and now >= manifest.expires:
        ago = _span(now - manifest.expires)
        raise _refused(
            f"cannot deploy {_name(manifest)}: its manifest expired {ago} ago"
            f" ({_when(manifest.expires)})",
            f"{_RENEW}; if it was, this host is shown an old copy: look at the store",
        )


def _check_serial(manifest: Manifest, highest: int, now: float) -> None:
    if manifest.serial > now + SERIAL_AHEAD_SECONDS:
        raise _refused(
            f"cannot deploy {_name(manifest)}: its manifest has the serial {manifest.serial}, more"
            " than a day ahead of this host's clock: it would shut out all that comes after it",
            "Delete that manifest from the store; then publish by agentctl push, whose serials are"
            " Unix seconds",
        )
    if manifest.serial < highest:
        raise _refused(
            f"cannot deploy {_name(manifest)}: its manifest has the serial {manifest.serial},"
            f" and this host has seen {highest}: it is an older one, put back",
            "Publish that version again, which takes a higher serial, by: agentctl push"
            " (or agentctl promote)",
        )


def _check_compatible(manifest: Manifest, os_id: str, arch: str) -> None:
    systems, archs = manifest.compatible.os, manifest.compatible.arch
    wrong = ""
    if systems and not any(each == os_id or os_id.startswith(f"{each}-") for each in systems):
        wrong = f"{wording.listed(systems)}, and this host is {os_id or 'of an unknown system'}"
    elif archs and arch not in archs:
        wrong = f"{wording.listed(archs)}, and this host is {arch or 'of an unknown architecture'}"
    if wrong:
        raise _refused(
            f"cannot deploy {_name(manifest)}: it is for {wrong}",
            "Publish a bundle that was built for this host, or name its kind in `compatible`",
        )


# ------------------------------------------------------------------ words


def _refused(message: str, remedy: str) -> AgentError:
    return AgentError(message, code=Code.MANIFEST_REFUSED, remedy=remedy)


def _name(manifest: Manifest) -> str:
    return f"{manifest.application} {manifest.version}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _span(seconds: float) -> str:
    """How long, in the largest unit of which there are at least two: 90 minutes, 3 days."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} seconds"
