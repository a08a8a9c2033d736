"""The `hooks` section of an appspec: which scripts run at which lifecycle event.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'hooks' section".
"""

from __future__ import annotations

import re

from agent.formats import findings, mappings, quantities, traps, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError

_DEFAULT_TIMEOUT = 3600.0
_LONGEST_TIMEOUT = 10**7  # seconds; 115 days


def build_hooks(value: object, found: Findings) -> dict[LifecycleEvent, tuple[Hook, ...]]:
    """The hooks of each event that has any, in the order in which they run."""
    hooks = {}
    for name, scripts in findings.mapping(value).items():
        path: Path = ("hooks", name)
        traps.check_own_dashes(path, scripts, "location", found)
        is_known = name in set(LifecycleEvent)
        # scripts of an event that is misspelt or never run are looked at too, for their faults
        event = LifecycleEvent(name) if is_known else LifecycleEvent.APPLICATION_START
        built = tuple(
            _hook((*path, index), event, entry, found) for index, entry in findings.entries(scripts)
        )
        if is_known and built:
            hooks[event] = built
        elif name in traps.NEVER_RUN and scripts:
            hint = "use BeforeInstall or AfterInstall"
            if name.endswith("Traffic"):
                hint = f"use Before{name} or After{name}"
            found.warn(path, "scripts of this event are never run", hint, at_key=True)
    return hooks


def _hook(path: Path, event: LifecycleEvent, entry: dict[str, object], found: Findings) -> Hook:
    runas = findings.text(entry.get("runas"))
    findings.refuse_control((*path, "runas"), runas, found)
    return Hook(
        event=event,
        location=_location((*path, "location"), entry.get("location"), found),
        timeout_seconds=_timeout((*path, "timeout"), entry.get("timeout"), found),
        runas=runas,
        sudo=entry.get("sudo") is True,
    )


def _location(path: Path, value: object, found: Findings) -> str:
    """Relative to the bundle; a leading / is the bundle's root, as for AWS's agent."""
    written = findings.text(value)
    if not written or findings.refuse_control(path, written, found):
        return ""
    if traps.looks_like_command(written):
        message = (
            f"{wording.shown(written)} is a shell command; a script of the bundle belongs here"
        )
        found.error(path, message, "put the command into a script and name that")
        return ""
    location = mappings.inside_bundle(path, written, found)
    if location == "":
        found.error(path, f"must be the path of a script, is {wording.shown(written)}")
    return location or ""


def _timeout(path: Path, value: object, found: Findings) -> float:
    """Whole seconds; anything else is read by AWS's agent as the number it begins with."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return _DEFAULT_TIMEOUT
    written = found.document.written(path) or str(value).strip()
    if isinstance(value, str):
        match = re.fullmatch("([0-9]{1,9})s?", written)
        if not match:
            found.error(path, *_no_seconds(written))
            return _DEFAULT_TIMEOUT
        seconds = int(match[1])
    else:
        seconds = int(value)
        if not re.fullmatch(r"[1-9][0-9]*(\.[0-9]+)?|0(\.[0-9]*)?|-.*", written):
            hint = "write it without the 0" if written.startswith("0") else f"write {seconds}"
            found.warn(path, f"{written} is read as {seconds} seconds", hint)
    if not 1 <= seconds <= _LONGEST_TIMEOUT:
        found.error(path, f"must be from 1 to {_LONGEST_TIMEOUT} seconds, is {written}")
    return float(seconds)


def _no_seconds(written: str) -> tuple[str, str]:
    """The message and the suggestion for a timeout that is no number of seconds."""
    leading = re.match("[0-9]+", written)
    would = f"would take {leading[0]} seconds" if leading else "would refuse it"
    try:
        hint = f"write {int(quantities.parse_duration(written))}"
    except AgentError:
        hint = ""
    shown = wording.shown(written)
    return f"must be a whole number of seconds, is {shown}; AWS's agent {would}", hint
