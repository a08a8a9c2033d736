"""agent.yaml, and the files of conf.d beside it, to Settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.formats import findings, quantities, sources, yamldoc
from agent.formats.findings import Findings
from agent.model.appspec import Problem, Severity
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.settings import (
    ConsulSettings,
    HookSettings,
    Leftover,
    Limits,
    Retention,
    Sandbox,
    Settings,
    SourceSettings,
    SourceType,
    StopFailure,
)

SYSTEM_CONFIG = Path("/etc/deploy-agent/agent.yaml")

Convert = Callable[[Any], Any]

# Key in the file: field of the model, and how its value becomes the field's.
_TOP: dict[str, tuple[str, Convert]] = {
    "state_dir": ("state_dir", Path),
    "run_dir": ("run_dir", Path),
    "keys_dir": ("keys_dir", Path),
    "imds_without_token": ("imds_without_token", bool),
    "api_group": ("api_group", str),
    "poll_interval": ("poll_seconds", quantities.parse_duration),
    "stop_failure": ("stop_failure", StopFailure),
    "starts": ("starts", int),
    "shutdown": ("shutdown_seconds", quantities.parse_duration),
}
_SOURCE: dict[str, tuple[str, Convert]] = {
    "type": ("type", SourceType),
    "path": ("path", str),
    "application": ("application", str),
    "deployment_group": ("group", str),
    "poll_interval": ("poll_seconds", quantities.parse_duration),
    "url": ("url", lambda given: str(given).rstrip("/")),
    "token_file": ("token_file", str),
    "region": ("region", str),
    "endpoint": ("endpoint", lambda given: str(given).rstrip("/")),
    "path_style": ("path_style", bool),
    "profile": ("profile", str),
    "role_arn": ("role_arn", str),
}
_LIMITS: dict[str, tuple[str, Convert]] = {
    "bundle": ("bundle_bytes", quantities.parse_size),
    "unpacked": ("unpacked_bytes", quantities.parse_size),
    "members": ("members", int),
    "depth": ("depth", int),
    "ratio": ("ratio", int),
    "free": ("free_bytes", quantities.parse_size),
    "free_inodes": ("free_inodes", int),
}
_HOOKS: dict[str, tuple[str, Convert]] = {
    "grace": ("grace_seconds", quantities.parse_duration),
    "leftover": ("leftover", Leftover),
    "log": ("log_bytes", quantities.parse_size),
    "retry": ("retry_seconds", quantities.parse_duration),
    "memory_max": ("memory_max_bytes", quantities.parse_size),
    "processes_max": ("processes_max", int),
    "cpu_weight": ("cpu_weight", int),
    "sandbox": ("sandbox", Sandbox),
}
_RETENTION: dict[str, tuple[str, Convert]] = {
    "releases": ("releases", int),
    "bundles": ("bundles", int),
    "deployments": ("deployments", int),
    "size": ("max_bytes", quantities.parse_size),
    "age": ("max_age_seconds", quantities.parse_duration),
}
_CONSUL: dict[str, tuple[str, Convert]] = {
    "address": ("address", str),
    "token_file": ("token_file", str),
    "ca_file": ("ca_file", str),
    "cert_file": ("cert_file", str),
    "key_file": ("key_file", str),
    "datacenter": ("datacenter", str),
    "prefix": ("prefix", str),
    "services_dir": ("services_dir", str),
}


def load_settings(path: Path | None, *, user_defaults: bool) -> Settings:
    """The settings of a configuration file and of conf.d/*.yaml beside it.

    path: a file that must be there; None for the default one, which may be missing.
    user_defaults: the folders of a plain user instead of the system's.
    Files of conf.d are read in the order of their names; a later file wins, mappings are merged,
    lists are replaced. Raises AgentError (CONFIG_INVALID) with every problem of all files.
    """
    main = path or default_config_path(user_defaults=user_defaults)
    merged: dict[str, Any] = {}
    problems: list[Problem] = []
    for file in config_files(main):
        value, found = read_config(file, is_required=path is not None or file != main)
        problems += found
        _merge(merged, value)
    if problems:
        errors = f"{len(problems)} error{'s' if len(problems) > 1 else ''}"
        raise AgentError(
            f"cannot use the configuration {main}: it has {errors}",
            code=Code.CONFIG_INVALID,
            details=tuple(str(problem) for problem in problems),
            remedy=f"Correct it, then check it by: {_check_command(main)}",
        )
    return _settings(merged, main, user_defaults=user_defaults)


def _check_command(main: Path) -> str:
    """By its name alone agentctl lint does not know every file for a configuration."""
    checker = "agentctl lint" if main.name == "agent.yaml" else "deploy-agent --check --config"
    return f"{checker} {main}"


def default_settings(*, user_defaults: bool) -> Settings:
    """The settings where no file says anything."""
    main = default_config_path(user_defaults=user_defaults)
    return _settings({}, main, user_defaults=user_defaults)


def config_files(main: Path) -> list[Path]:
    """A configuration file and those of conf.d beside it, in the order in which they are read."""
    return [main, *_parts(main.parent / "conf.d")]


def default_config_path(*, user_defaults: bool) -> Path:
    """Where the configuration is looked for when none is named."""
    if not user_defaults:
        return SYSTEM_CONFIG
    folder = _xdg("XDG_CONFIG_HOME") or Path.home() / ".config"
    return folder / "deploy-agent" / "agent.yaml"


def read_config(
    file: Path, *, is_required: bool = True
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """One file's value ({} where it is unusable), and what is wrong with it.

    Raises AgentError (CONFIG_INVALID) if it cannot be read; an absent one only if it is required.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(yamldoc.MAX_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_required:
            return {}, ()
        if isinstance(error, FileNotFoundError):
            remedy = "Name a file that is there, or leave --config out for the one of this host"
        else:
            remedy = f"Let the agent's user read it: ls -ld {file.parent} {file}"
        raise from_os_error(
            error, f"read {file}", code=Code.CONFIG_INVALID, remedy=remedy
        ) from error
    found = Findings(yamldoc.parse_yaml(text, str(file), is_strict=True))
    if found.document.is_readable:
        sources.check_sources(found)
        found.check_schema("agent", lambda _: Severity.ERROR)
    problems = tuple(each for each in found.sorted() if each.severity is Severity.ERROR)
    value = found.document.value if isinstance(found.document.value, dict) else {}
    return ({} if problems else value), problems


def _parts(folder: Path) -> list[Path]:
    """The files of conf.d in their order; editors' and dpkg's leftovers have other names."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise from_os_error(error, f"read {folder}", code=Code.CONFIG_INVALID) from error
    return [
        folder / name
        for name in names
        if name.endswith((".yaml", ".yml")) and not name.startswith(".")
    ]


def _merge(into: dict[str, Any], value: dict[str, Any]) -> None:
    for key, each in value.items():
        if isinstance(each, dict) and isinstance(into.get(key), dict):
            _merge(into[key], each)
        else:
            into[key] = each


def _settings(merged: dict[str, Any], main: Path, *, user_defaults: bool) -> Settings:
    top = _fields(merged, _TOP)
    if "state_dir" not in top:
        top["state_dir"] = _default_state_dir(user_defaults=user_defaults)
    if "run_dir" not in top:
        top["run_dir"] = _default_run_dir(top["state_dir"], user_defaults=user_defaults)
    group = merged.get("deployment_group", "default")
    if isinstance(group, dict):
        top["group"], top["group_tag"] = "", str(group["instance_tag"])
    else:
        top["group"] = str(group)
    if "keys_dir" not in top:
        top["keys_dir"] = main.absolute().parent / "keys.d"
    settings = Settings(
        **top,
        step_timeouts={
            step: quantities.parse_duration(each)
            for step, each in findings.mapping(merged.get("timeouts")).items()
        },
        limits=Limits(**_fields(merged.get("limits"), _LIMITS)),
        hooks=HookSettings(**_fields(merged.get("hooks"), _HOOKS)),
        retention=Retention(**_fields(merged.get("retention"), _RETENTION)),
        consul=(
            ConsulSettings(**_fields(merged["consul"], _CONSUL)) if "consul" in merged else None
        ),
    )
    found = [_source(entry, settings) for _, entry in findings.entries(merged.get("sources"))]
    return replace(settings, sources=tuple(found))


def _source(entry: dict[str, Any], settings: Settings) -> SourceSettings:
    given = _fields(entry, _SOURCE)
    if given["type"] is SourceType.DIRECTORY:
        given = {"poll_seconds": settings.poll_seconds, **given}
    return SourceSettings(**{"group": settings.group, **given})


def _fields(value: object, table: dict[str, tuple[str, Convert]]) -> dict[str, Any]:
    """The fields of a model that a section gives."""
    section = findings.mapping(value)
    return {name: convert(section[key]) for key, (name, convert) in table.items() if key in section}


def _default_state_dir(*, user_defaults: bool) -> Path:
    if not user_defaults:
        return Path("/var/lib/deploy-agent")
    return (_xdg("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "deploy-agent"


def _default_run_dir(state_dir: Path, *, user_defaults: bool) -> Path:
    if not user_defaults:
        return Path("/run/deploy-agent")
    runtime = _xdg("XDG_RUNTIME_DIR")
    return runtime / "deploy-agent" if runtime else state_dir / "run"


def _xdg(name: str) -> Path | None:
    """A folder of the XDG base directory specification, which ignores relative ones."""
    value = os.environ.get(name, "")
    return Path(value) if value.startswith("/") else None
