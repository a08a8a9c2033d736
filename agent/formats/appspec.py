"""An appspec's text to its model: every fault at once, each with its place and a suggestion.

Source of the rules for AWS's sections: AWS CodeDeploy user guide, "AppSpec file structure".
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.formats import (
    bundle_tree,
    findings,
    hooks,
    mappings,
    permissions,
    schema,
    services,
    traps,
    wording,
    yamldoc,
)
from agent.formats.findings import Findings
from agent.model.appspec import AppSpec, FileExistsBehavior, Problem, Severity
from agent.model.errors import AgentError, Code, from_os_error

FILENAMES = ("appspec.yaml", "appspec.yml")  # the first that is there, as AWS's agent chooses


@dataclass(frozen=True, slots=True)
class ParsedAppSpec:
    """appspec: None if and only if a problem is an error. document: where everything stands."""

    appspec: AppSpec | None
    problems: tuple[Problem, ...]
    document: yamldoc.Document


def find_appspec(tree: Path) -> Path:
    """The appspec of an unpacked bundle. Raises AgentError (APPSPEC_INVALID)."""
    try:
        names = sorted(os.listdir(tree))
    except OSError as error:
        raise from_os_error(error, f"read {tree}", code=Code.APPSPEC_INVALID) from error
    for name in FILENAMES:
        if name in names:
            return tree / name
    raise AgentError(
        f"cannot find the appspec: there is no appspec.yml in {tree}",
        code=Code.APPSPEC_INVALID,
        remedy=missing_hint(names),
    )


def missing_hint(names: list[str]) -> str:
    """What to do about a bundle whose root has these names and no appspec."""
    near = [name for name in names if "appspec" in name.casefold()]
    near = near or wording.nearest("appspec.yml", names, count=3)
    if near:
        return f"Rename {wording.listed([wording.name(n) for n in near[:5]])} to appspec.yml"
    return "Put an appspec.yml into the root of the bundle, then run: agentctl lint"


def load_appspec(tree: Path, *, filename: str = "") -> tuple[AppSpec, tuple[Problem, ...]]:
    """The appspec of an unpacked bundle, and its warnings.

    filename: its name if the source says so, else it is searched for.
    Raises AgentError (APPSPEC_INVALID) with every problem as a line of its details.
    """
    name = filename or find_appspec(tree).name
    parsed = parse_appspec(read_limited(tree / name), name)
    if parsed.appspec is None:
        errors = sum(problem.severity is Severity.ERROR for problem in parsed.problems)
        raise AgentError(
            f"cannot use {name}: it has {errors} error{'s' if errors > 1 else ''}",
            code=Code.APPSPEC_INVALID,
            details=tuple(str(problem) for problem in parsed.problems),
            remedy="Correct it and check it before publishing, by: agentctl lint FOLDER",
        )
    return parsed.appspec, parsed.problems


def read_limited(path: Path) -> bytes:
    """A text file's bytes, one more than the limit at most. Raises AgentError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AgentError(f"cannot read {path}: it is no file", code=Code.APPSPEC_INVALID)
        with path.open("rb") as file:
            return file.read(yamldoc.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise from_os_error(cause, f"read {path}", code=Code.APPSPEC_INVALID) from error


def parse_appspec(text: bytes, filename: str) -> ParsedAppSpec:
    """Parse an appspec, whatever the bytes are; filename: its name in problems and messages."""
    document = yamldoc.parse_yaml(text, filename)
    found = Findings(document)
    appspec = None
    if document.is_readable:
        appspec = _build(document.value, found)
    problems = found.sorted()
    return ParsedAppSpec(None if findings.has_error(problems) else appspec, problems, document)


def check_tree(appspec: AppSpec, tree: Path) -> list[Problem]:
    """What the appspec says against what its unpacked bundle holds, in the order of the file.

    Raises AgentError (APPSPEC_INVALID) if the appspec itself cannot be read again: it is needed
    for the places.
    """
    text = read_limited(tree / appspec.filename)
    document = yamldoc.parse_yaml(text, appspec.filename)
    return bundle_tree.check_bundle(appspec, bundle_tree.FolderTree(tree), document)


def _build(value: object, found: Findings) -> AppSpec | None:
    """The model as far as it can be made; None where there is nothing to make it of."""
    if value is None:
        found.error((), "the appspec is empty")
        return None
    if not isinstance(value, dict):
        message = (
            f"the appspec must be a mapping (version, os, files, hooks), is {wording.shown(value)}"
        )
        found.error((), message)
        return None
    if _is_foreign(value, found):
        return None
    traps.check_top_level(value, found)
    _check_header(value, found)
    appspec = AppSpec(
        filename=found.document.file,
        files=mappings.build_mappings(value.get("files"), found),
        file_exists_behavior=_behavior(value.get("file_exists_behavior")),
        permissions=permissions.build_permissions(value.get("permissions"), found),
        hooks=hooks.build_hooks(value.get("hooks"), found),
        services=services.build_services(value.get("services"), found),
    )
    found.check_schema("appspec", _severity)
    return appspec


def _severity(finding: schema.Finding) -> Severity:
    """Unknown keys in the entries of AWS's sections are ignored by AWS; all else is refused."""
    is_known_to_aws = finding.path[:1] != ("services",) and len(finding.path) > 2
    return Severity.WARNING if finding.unknown and is_known_to_aws else Severity.ERROR


def _is_foreign(top: dict[str, object], found: Findings) -> bool:
    """Whether this is an appspec for something else than a Linux host; then that is the error."""
    if "Resources" in top:
        words = str(top["Resources"])[:10_000]
        kinds = [kind for kind in ("ECS", "Lambda") if f"AWS::{kind}::" in words]
        target = f"AWS {kinds[0]}" if kinds else "AWS ECS or Lambda"
        message = f"this is an appspec for {target}; on a host, it has files and hooks instead"
        found.error(("Resources",), message, "write one for EC2/on-premises", at_key=True)
        return True
    os_name = top.get("os")
    if isinstance(os_name, str) and os_name.strip().casefold() == "windows":
        message = "this is an appspec for Windows; the agent deploys to Linux hosts"
        found.error(("os",), message, "for a Linux host write os: linux")
        return True
    return False


def _check_header(top: dict[str, object], found: Findings) -> None:
    version = top.get("version")
    if "version" not in top:
        found.error((), "has no version", "begin the file with version: 0.0")
        found.hush(())
    elif isinstance(version, int | float | str) and version not in (0, "0.0"):
        shown = wording.shown(version, found.document.written(("version",)))
        message = f"must be 0.0, is {shown}"
        hint = "it is the version of the appspec format, not of the application"
        found.error(("version",), message, hint)
    if "os" not in top:
        found.error((), "has no os", "write os: linux below the version")
        found.hush(())


def _behavior(value: object) -> FileExistsBehavior | None:
    is_known = isinstance(value, str) and value in set(FileExistsBehavior)
    return FileExistsBehavior(str(value)) if is_known else None
