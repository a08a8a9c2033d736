"""The `environment` key of an entry of `services`: keys of Consul as an EnvironmentFile."""

from __future__ import annotations

import posixpath
import signal

from agent.formats import findings, permissions, quantities, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import EnvironmentFile, OnChange

_OTHERS = 0o007


def build_environment(
    path: Path, value: object, unit: str, found: Findings
) -> EnvironmentFile | None:
    """What the key at `path` says; None where there is none. The schema complains of the rest."""
    if not isinstance(value, dict):
        return None
    on_change, _, signal_name = findings.text(value.get("on_change")).partition(":")
    if signal_name and f"SIG{signal_name}" not in signal.Signals.__members__:
        message = f"{wording.shown(signal_name)} is no signal"
        found.error((*path, "on_change"), message, "write it as kill(1) does: signal:HUP")
    chosen = OnChange(on_change) if on_change in set(OnChange) else OnChange.RESTART
    if not unit and chosen is not OnChange.NONE:
        message = f"needs a unit: {chosen} is done to it"
        found.error(path, message, "add unit to this entry, or on_change: none", at_key=True)
    file = findings.text(value.get("file"))
    if findings.refuse_control((*path, "file"), file, found):
        file = ""
    if file and (posixpath.normpath(file) != file or file == "/"):
        found.error((*path, "file"), f"must be the path of a file, is {wording.shown(file)}")
    prefix = findings.text(value.get("prefix"))
    if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix:
        message = f"must be keys joined by /, is {wording.shown(prefix)}"
        found.error((*path, "prefix"), message, "write it as config/go-service")
    mode = permissions.build_mode((*path, "mode"), value.get("mode"), found)
    if mode is not None and mode & _OTHERS:
        found.warn((*path, "mode"), "lets every user of the host read it, or more")
    return EnvironmentFile(
        prefix=prefix.strip("/"),
        path=file,
        on_change=chosen,
        signal=signal_name,
        owner=permissions.build_name((*path, "owner"), value.get("owner"), found),
        group=permissions.build_name((*path, "group"), value.get("group"), found),
        mode=0o600 if mode is None else mode,
        slots=_slots(value.get("slots")),
        **quantities.durations(value, "splay"),
    )


def _slots(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
