"""The agent itself: does it run, is it the one that is installed, does it know its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent
from agent.client import Client
from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.formats import settings as settings_format
from agent.model.errors import AgentError, Code

_ASK_SECONDS = 3.0
_RESTART = "Restart it when nothing is deployed: systemctl restart deploy-agent"


def look(host: Host) -> Iterator[Finding]:
    """Ask it over its socket."""
    client = Client(str(host.socket), _ASK_SECONDS)
    try:
        version = client.call("GET", "/v1/version")
    except AgentError as error:
        yield _no_answer(host, error)
        return
    yield from _compare(host, version)
    try:
        status = client.call("GET", "/v1/status")
    except AgentError as error:
        yield finding.problem(error.message, error.remedy)
        return
    for source in status["agent"]["sources"]:
        if source["problem"]:
            yield finding.problem(f"{source['source']}: {source['problem']}", "")


def _no_answer(host: Host, error: AgentError) -> Finding:
    if error.code is Code.NOT_PERMITTED:
        return finding.unknown(error.message)
    pid = host.agent_pid()
    if pid is not None:
        return finding.problem(
            f"{error.message}, though pid {pid or '?'} uses {host.settings.state_dir}",
            f"See what it does: journalctl {f'_PID={pid}' if pid else '-u deploy-agent'} -n 50",
        )
    return finding.problem(error.message, error.remedy)


def _compare(host: Host, version: dict[str, Any]) -> Iterator[Finding]:
    is_same = version["version"] == agent.__version__
    if is_same and os.stat(agent.__file__).st_ctime <= version["started_at"]:
        yield finding.ok(f"version {version['version']}, pid {version['pid']}, answers")
    elif is_same:
        yield finding.warning("it was installed anew since the agent started", _RESTART)
    else:
        text = f"version {version['version']} runs, {agent.__version__} is installed"
        yield finding.warning(text, _RESTART)
    if version["state_dir"] != str(host.settings.state_dir):
        yield finding.warning(
            f"it uses {version['state_dir']}, {host.config} says {host.settings.state_dir}",
            f"{_RESTART}; or name its configuration: agentctl doctor --config FILE",
        )
    changed = [str(each) for each in _files(host.config) if _changed(each) > version["started_at"]]
    if changed:
        yield finding.warning(f"{', '.join(changed)} changed since it started", _RESTART)


def _files(config: Path) -> list[Path]:
    try:
        return settings_format.config_files(config)
    except AgentError:
        return [config]


def _changed(file: Path) -> float:
    try:
        return file.stat().st_ctime
    except OSError:
        return 0.0
