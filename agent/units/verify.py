"""Ask systemd-analyze(1) about the unit files of a revision, before they are installed.

They are laid out in a scratch folder, which it searches before the host's own folders. It speaks
of the host as it is: a program that is installed later is missing to it, so what it says is judged.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.model.errors import AgentError, Code, from_os_error
from agent.system import systemd
from agent.units import unitfiles
from agent.units.unitfiles import Role, UnitFile

_UNIT_BYTES = 2**20


class Kind(StrEnum):
    """What a finding is about."""

    REFUSED = "refused"  # systemd will not load the unit
    IGNORED = "ignored"  # it leaves a line out
    NO_PROGRAM = "no-program"
    NO_UNIT = "no-unit"  # the unit needs one that is not there
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a unit. subject: the program's path, for NO_PROGRAM."""

    kind: Kind
    unit: str
    text: str
    subject: str = ""


def verify(files: Sequence[UnitFile], tree: Path, scratch: Path) -> list[Finding]:
    """What systemd finds wrong with the unit files that are wanted, in their order; blocks.

    tree: the release. scratch: a folder that is made, and removed. Raises AgentError.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(mode=0o700)
        places = dict(_lay_out(files, tree, scratch))
        units = sorted(path for path in places if os.path.dirname(path) == str(scratch))
        if not units:
            return []
        try:
            lines = systemd.verify_blocking([Path(path) for path in units])
        except AgentError as error:
            return [Finding(Kind.OTHER, "", f"the unit files are not verified: {error.message}")]
        return judge(lines, places, [os.path.basename(path) for path in units])
    except OSError as error:
        raise from_os_error(error, "verify the unit files", code=Code.PLAN_REFUSED) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _lay_out(files: Sequence[UnitFile], tree: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """Copy the unit files into `scratch`: where each lies there, and where it will on the host."""
    for file in files:
        if file.role is Role.OTHER:
            continue
        name = file.unit if file.role is Role.UNIT else f"{file.unit}.d/{Path(file.path).name}"
        target = scratch / name
        if file.is_wanted and not target.exists():
            target.parent.mkdir(exist_ok=True)
            _copy(tree / file.source, target)
            yield str(target), file.path
        elif file.role is Role.DROP_IN and not file.is_wanted and not target.exists():
            # it goes with this install: an empty one of its name hides it
            target.parent.mkdir(exist_ok=True)
            target.touch()
    for unit in {file.unit for file in files if file.role is Role.DROP_IN and file.is_wanted}:
        target = scratch / unit
        found = unitfiles.find_on_host(unit)
        if not target.exists() and found:
            _copy(Path(os.path.realpath(found)), target)
            yield str(target), found


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        target.write_bytes(file.read(_UNIT_BYTES))


_PLACED = re.compile(r"(/.+?):(\d+): (.*)")
_PROGRAM = re.compile(r"Command (/.*) is not executable: .*")
_UNLOADED = re.compile(r"Unit (\S+) (has a bad unit file setting|failed to load properly).*")
_MASKED = re.compile(r"Unit (\S+) is masked\.?")
_NO_UNIT = re.compile(r"Failed to create \S+: (.*)|(service \S+ not loaded, .*)")
_OF_UNIT = re.compile(r"(\S+\.[a-z]+): (.*)")


def judge(lines: Sequence[str], places: Mapping[str, str], units: Collection[str]) -> list[Finding]:
    """What the lines of systemd-analyze say of `units`; what they say of others is left out.

    places: of each file that was verified, its path on the host.
    """
    said: list[Finding] = []
    refused: dict[str, None] = {}
    for line in dict.fromkeys(lines):
        if placed := _PLACED.match(line):
            path, number, text = placed.groups()
            if path in places:
                kind = Kind.IGNORED if "ignoring" in text.lower() else Kind.OTHER
                unit = _unit_of(path)
                said.append(Finding(kind, unit, f"{places[path]}:{number}: {text}"))
        elif unloaded := _UNLOADED.match(line):
            refused[_known(unloaded[1], units)] = None
        elif masked := _MASKED.match(line):
            if unit := _known(masked[1], units):
                said.append(Finding(Kind.REFUSED, unit, f"{unit} is empty: systemd masks it"))
        elif (of_unit := _OF_UNIT.match(line)) and (unit := _known(of_unit[1], units)):
            said.append(_of_unit(unit, of_unit[2]))
    refused.pop("", None)
    return [*_refusals(said, refused), *(each for each in said if not _is_cause(each, refused))]


def _refusals(said: Sequence[Finding], refused: Collection[str]) -> Iterator[Finding]:
    for unit in refused:
        causes = [each.text for each in said if each.unit == unit and _is_cause(each, refused)]
        text = "; ".join(causes) or "it has a bad setting"
        yield Finding(Kind.REFUSED, unit, f"systemd refuses {unit}: {text}")


def _is_cause(finding: Finding, refused: Collection[str]) -> bool:
    return finding.unit in refused and finding.kind is Kind.OTHER


def _of_unit(unit: str, text: str) -> Finding:
    if program := _PROGRAM.match(text):
        return Finding(Kind.NO_PROGRAM, unit, text, program[1])
    if missing := _NO_UNIT.match(text):
        return Finding(Kind.NO_UNIT, unit, f"{unit}: {missing[1] or missing[2]}")
    return Finding(Kind.OTHER, unit, text)


def _unit_of(path: str) -> str:
    """The unit that a file in the scratch folder is about."""
    folder = os.path.basename(os.path.dirname(path))
    return folder.removesuffix(".d") if path.endswith(".conf") else os.path.basename(path)


def _known(name: str, units: Collection[str]) -> str:
    """The verified unit by this name; a template is verified as some instance. "" for others."""
    if name in units:
        return name
    template = unitfiles.template_of(name)
    return template if template in units else ""
