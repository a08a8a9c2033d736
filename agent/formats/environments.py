"""deploy.yaml, the environments that revisions are published to, to its model."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from agent.formats import findings, quantities, wording, yamldoc
from agent.formats.findings import Findings
from agent.model.appspec import Problem, Severity
from agent.model.environments import Environment, Environments, KeySettings, Target
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.transfer import S3Place

FILENAMES = ("deploy.yaml", "deploy.yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SECRET = re.compile(r"RWRTY0Iy|untrusted comment:")  # how a minisign secret key begins
_FOLDERS = ("bundles", "releases")  # of an application, beside those of its deployment groups
_NO_EXPIRY = "is missing beside the key: hosts refuse a signed manifest that is good for ever"


def load_environments(given: Path | None) -> Environments:
    """The environments of a file; of deploy.yaml in the working folder if none is given.

    Raises AgentError (CONFIG_INVALID) with every problem as a line of its details.
    """
    file = given or _found()
    environments, problems = read_environments(file)
    if environments is None:
        errors = sum(each.severity is Severity.ERROR for each in problems)
        raise AgentError(
            f"cannot use {file}: it has {errors} error{'s' if errors > 1 else ''}",
            code=Code.CONFIG_INVALID,
            details=tuple(map(str, problems)),
            remedy=f"Correct it, then check it by: agentctl lint {file}",
        )
    return environments


def _found() -> Path:
    for name in FILENAMES:
        if Path(name).is_file():
            return Path(name)
    raise AgentError(
        "cannot find the environments: there is no deploy.yaml in this folder",
        code=Code.BAD_REQUEST,
        remedy="Name the file that describes them: --environments FILE",
    )


def read_environments(file: Path) -> tuple[Environments | None, tuple[Problem, ...]]:
    """A file's environments, None if and only if a problem is an error, and its problems.

    Raises AgentError if it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(yamldoc.MAX_BYTES + 1)
    except OSError as error:
        code = Code.BAD_REQUEST if isinstance(error, FileNotFoundError) else Code.CONFIG_INVALID
        raise from_os_error(error, f"read {file}", code=code) from error
    return parse_environments(text, file)


def parse_environments(text: bytes, file: Path) -> tuple[Environments | None, tuple[Problem, ...]]:
    """What read_environments gives, of a text. Key files are relative to the folder of `file`."""
    found = Findings(yamldoc.parse_yaml(text, str(file), is_strict=True))
    environments = Environments(file, ())
    if found.document.is_readable:
        if found.document.value is None:
            found.error((), "the file is empty", "docs/publishing.md has an example")
            found.hush(())
        environments = Environments(file, tuple(_build(found, file.parent)))
        found.check_schema("environments", lambda _: Severity.ERROR)
    problems = found.sorted()
    return (None if findings.has_error(problems) else environments), problems


def looks_like_environments(text: bytes) -> bool:
    """Whether a YAML file of any name describes environments, and is no appspec."""
    value = findings.mapping(yamldoc.parse_yaml(text, "").value)
    return "environments" in value and not value.keys() & {"os", "hooks", "files"}


def choose(environments: Environments, name: str) -> Environment:
    """The environment of a name. Raises AgentError (BAD_REQUEST)."""
    by_name = {each.name: each for each in environments.all}
    if name in by_name:
        return by_name[name]
    near = wording.did_you_mean(name, by_name)
    raise AgentError(
        f"cannot find environment {wording.shown(name)} in {environments.file}"
        + (f": {near}" if near else ""),
        code=Code.BAD_REQUEST,
        remedy=f"Name one of: {', '.join(by_name)}",
    )


def _build(found: Findings, folder: Path) -> list[Environment]:
    """The environments as far as they can be made; what is wrong with each is in `found`."""
    sections = findings.mapping(findings.mapping(found.document.value).get("environments"))
    built = []
    for name, value in sections.items():
        if not _NAME.fullmatch(name):
            message = "an environment's name must be a word of letters, digits, dots and dashes"
            found.error(("environments", name), message, at_key=True)
        if isinstance(value, dict):
            _check_keys(name, value, found)
            _check_requires(name, value, list(sections), found)
            built.append(_environment(name, value, folder, found))
    _check_pointers(built, found)
    return built


def _environment(
    name: str, section: dict[str, object], folder: Path, found: Findings
) -> Environment:
    expires = 0.0
    with contextlib.suppress(AgentError):  # the schema complains of it
        expires = quantities.parse_duration(section.get("expires", 0))
    path, public = findings.text(section.get("key")), findings.text(section.get("public_key"))
    return Environment(
        name=name,
        targets=tuple(_targets(name, section, found)),
        keys=KeySettings(
            path=folder / path if path else None,
            variable=findings.text(section.get("key_env")),
            password_variable=findings.text(section.get("password_env")),
            public_path=folder / public if public else None,
        ),
        expires_seconds=expires,
        requires=findings.texts(section.get("requires")),
    )


def _targets(name: str, section: dict[str, object], found: Findings) -> list[Target]:
    at = ("environments", name, "targets")
    if section.get("targets") == []:
        found.error(at, "must not be empty")
    built: list[Target] = []
    for index, entry in findings.entries(section.get("targets")):
        target = _target(entry)
        if target.name and target.name in {each.name for each in built}:
            message = f"two targets of {wording.name(name)} are called {target.name}"
            found.error((*at, index, "name"), message, "give each a name of its own")
        if entry.get("deployment_groups") == []:
            found.error((*at, index, "deployment_groups"), "must not be empty")
        for place, group in enumerate(target.groups):
            if group in target.groups[:place]:
                found.error((*at, index, "deployment_groups", place), f"{group} is there twice")
            if group in _FOLDERS:
                message = f"{group} is the name of a folder beside those of the groups"
                found.error((*at, index, "deployment_groups", place), message, "call it otherwise")
        if any(part in (".", "..") for part in target.place.url.split("/")):
            found.error((*at, index, "url"), "must not contain . or .. as a folder")
        built.append(target)
    return built


def _target(entry: dict[str, object]) -> Target:
    return Target(
        name=findings.text(entry.get("name")),
        place=S3Place(
            url=findings.text(entry.get("url")).rstrip("/"),
            region=findings.text(entry.get("region")),
            endpoint=findings.text(entry.get("endpoint")).rstrip("/"),
            path_style=entry.get("path_style") is True,
            profile=findings.text(entry.get("profile")),
            role_arn=findings.text(entry.get("role_arn")),
        ),
        groups=findings.texts(entry.get("deployment_groups", ["default"])),
    )


def _check_keys(name: str, section: dict[str, object], found: Findings) -> None:
    at = ("environments", name)
    if "key" in section and "key_env" in section:
        found.error((*at, "key_env"), "key says already where the key is", "keep one", at_key=True)
    has_secret = "key" in section or "key_env" in section
    if "password_env" in section and not has_secret:
        message = "there is no key that it would open"
        found.error((*at, "password_env"), message, "write key or key_env", at_key=True)
    for word in ("key", "key_env"):
        if _SECRET.search(findings.text(section.get(word))):
            message = f"is a secret key itself; {word} names where it is"
            hint = "take it out, make a new one, and write key_env: DEPLOY_KEY"
            found.error((*at, word), message, hint)
    if has_secret and "expires" not in section:
        found.error((*at, "expires"), _NO_EXPIRY, "write expires: 30d")


def _check_requires(
    name: str, section: dict[str, object], known: list[str], found: Findings
) -> None:
    requires = section.get("requires")
    for index, other in enumerate(requires if isinstance(requires, list) else ()):
        at = ("environments", name, "requires", index)
        if other == name:
            found.error(at, f"{wording.name(name)} cannot require itself")
        elif isinstance(other, str) and other not in known:
            near = wording.did_you_mean(other, known)
            found.error(at, f"there is no environment {wording.shown(other)}", near)


def _check_pointers(built: list[Environment], found: Findings) -> None:
    """No two entries may write the same pointer: each would undo what the other published."""
    owners: dict[tuple[str, str, str], str] = {}
    for environment in built:
        for index, target in enumerate(environment.targets):
            name = f"{environment.name}/{target.name}"
            for group in target.groups:
                pointer = (target.place.endpoint, target.place.url, group)
                if target.place.url and owners.setdefault(pointer, name) != name:
                    at = ("environments", environment.name, "targets", index, "url")
                    message = f"{owners[pointer]} publishes to the same place, group {group}"
                    found.error(at, message, "give each a prefix of its own: s3://bucket/test")
