"""The commands that people type all day start at once: what they import is bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.component import cli_server

# Each of these costs 2 to 150 ms; `agentctl status` has 50, of which the interpreter takes 10.
FORBIDDEN = {
    "aiohttp",
    "asyncio",
    "dataclasses",
    "difflib",
    "email",
    "http",
    "inspect",
    "jsonschema",
    "logging",
    "pathlib",
    "psutil",
    "rich",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "typing",
    "urllib",
    "yaml",
}
QUICK = {
    "status": ["status"],
    "history": ["history"],
    "version": ["version"],
    "logs": ["logs"],
    "hold": ["hold", "--reason", "x"],
    "unhold": ["unhold"],
    "abort": ["abort"],
    "plan": ["plan", "x.zip"],
    "deploy": ["deploy", "x.zip"],
}
DUMP = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
from agent.cli import main
code = main.main(sys.argv[2:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def imported(tmp_path: Path, *args: str) -> set[str]:
    """The modules that a command imports, with -S so that no site-packages add their own."""
    with cli_server.serving(tmp_path) as api:
        api.on("GET", "/v1/status", (200, cli_server.status(cli_server.application())))
        api.on("GET", "/v1/deployments", cli_server.ok(deployments=[cli_server.deployment()]))
        api.on("GET", "/v1/deployments/last/log", [{"line": "x"}])
        api.on(
            "GET", "/v1/deployments/d-7K3M9QX2P/events", [{"deployment": cli_server.deployment()}]
        )
        done = cli_server.deployment()
        api.on("POST", "/v1/deployments", cli_server.ok(deployment=done))
        dumped = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", DUMP, str(cli_server.ROOT), *args],
            env=cli_server.environment(DEPLOY_AGENT_SOCKET=api.socket),
            capture_output=True,
            text=True,
            timeout=9,
            check=True,
        )
    return set(dumped.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_import_little(tmp_path: Path, command: str) -> None:
    names = imported(tmp_path, *QUICK[command])
    assert f"agent.cli.{command}" in names
    assert {name.split(".")[0] for name in names} & FORBIDDEN == set()
    assert {name for name in names if name.startswith("agent.model.")} <= {"agent.model.errors"}


def test_a_command_imports_no_other(tmp_path: Path) -> None:
    names = imported(tmp_path, "status")
    assert not {f"agent.cli.{other}" for other in QUICK if other != "status"} & names
