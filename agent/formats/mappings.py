"""The `files` section of an appspec: what is installed where.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'files' section".
"""

from __future__ import annotations

import posixpath
import re

from agent.formats import findings, traps, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import FileMapping


def build_mappings(value: object, found: Findings) -> tuple[FileMapping, ...]:
    """The section's entries, in the order of the file."""
    traps.check_own_dashes(("files",), value, "source", found)
    built = []
    for index, entry in findings.entries(value):
        path: Path = ("files", index)
        for key in entry:
            hint = traps.misplaced(key)
            if hint:
                found.warn((*path, key), "is ignored here", hint, at_key=True)
                found.hush((*path, key))
        source = _source((*path, "source"), entry.get("source"), found)
        destination = _destination((*path, "destination"), entry.get("destination"), found)
        if source == "" and traps.is_shared_folder(destination):
            found.warn((*path, "destination"), *traps.shared_folder(destination))
        built.append(FileMapping(source or "", destination))
    return tuple(built)


def _source(path: Path, value: object, found: Findings) -> str | None:
    """Relative to the bundle, "" for all of it; None where it is none."""
    if not isinstance(value, str) or not value or findings.refuse_control(path, value, found):
        return None
    return inside_bundle(path, value, found)


def inside_bundle(path: Path, written: str, found: Findings) -> str | None:
    """A path of the bundle in its shortest form, "" for the bundle itself."""
    shortest = posixpath.normpath(written.lstrip("/") or ".")
    if shortest == ".." or shortest.startswith("../"):
        message = f"{wording.shown(written)} leads out of the bundle"
        found.error(path, message, "only what is in the bundle can be used")
        return None
    return "" if shortest == "." else shortest


def _destination(path: Path, value: object, found: Findings) -> str:
    if not isinstance(value, str) or findings.refuse_control(path, value, found):
        return ""
    variable = traps.variable_in(value)
    if not value.startswith("/"):
        hint = f"{variable} is not expanded: write the path in full" if variable else ""
        if re.match(r"[A-Za-z]:[\\/]", value):
            hint = "this is a Windows path"
        elif value.startswith("~"):
            hint = "~ is not expanded: write the path in full"
        found.error(path, f"must be an absolute path, is {wording.shown(value)}", hint)
        return ""
    if variable:
        found.warn(path, f"{variable} is taken literally", "write the path in full")
    return "/" + posixpath.normpath(value).lstrip("/")
