"""Bash completion of agentctl, in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import cli_options
from tests.component import cli_server

SCRIPT = cli_server.ROOT / "packaging" / "bash-completion" / "agentctl"
COMPLETE = r"""
set -u
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_agentctl
printf '%s\n' "${COMPREPLY[@]}"
"""

Complete = Callable[..., set[str]]


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """What a line is completed to. Its last word is the one that is being typed."""
    agentctl = tmp_path / "bin" / "agentctl"
    agentctl.parent.mkdir()
    agentctl.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent.cli.main "$@"\n')
    agentctl.chmod(0o755)

    def run(*words: str) -> set[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", COMPLETE, "bash", SCRIPT, "agentctl", *words],
            env=cli_server.environment(
                PATH=f"{agentctl.parent}:/usr/bin:/bin",
                DEPLOY_AGENT_SOCKET=str(tmp_path / "agent.sock"),
            ),
            cwd=tmp_path, capture_output=True, text=True, timeout=9, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return set(done.stdout.split("\n")) - {""}

    return run


def test_commands(complete: Complete) -> None:
    assert complete("") == set(cli_options.ALL)
    assert complete("un") == {"unhold", "undrain"}
    assert complete("--socket", "/x", "ver") == {"version"}
    assert complete("--") == {"--help", "--socket", "--version"}
    assert complete("nonsense", "") == set()


@pytest.mark.parametrize("command", cli_options.ALL)
def test_options(complete: Complete, command: str) -> None:
    long_ones = {name for name in cli_options.options(command) if name.startswith("--")}
    assert complete(command, "--") == long_ones | {"--help", "--socket"}


def test_files(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "shop 1.zip").touch()
    (tmp_path / "other.yaml").touch()
    assert complete("deploy", "shop") == {"shop 1.zip"}
    assert complete("lint", "o") == {"other.yaml"}
    assert complete("status", "--config", "o") == {"other.yaml"}
    assert complete("--socket", "o") == {"other.yaml"}


def test_environments(complete: Complete, tmp_path: Path) -> None:
    example = cli_server.ROOT / "examples" / "deploy.yaml"
    assert complete("push", "--to", "") == set()
    assert complete("push", "--environments", str(example), "--to", "p") == {"production"}
    shutil.copy(example, tmp_path / "deploy.yaml")
    for words in (("push", "x.zip", "--to"), ("promote", "shop", "--from"), ("diff", "shop")):
        assert complete(*words, "") == {"test", "production"}


def test_what_the_agent_knows(complete: Complete, tmp_path: Path) -> None:
    shop, other = cli_server.application(), cli_server.application(application="other[*]")
    with cli_server.serving(tmp_path) as api:
        api.on("GET", "/v1/status", (200, cli_server.status(shop, other)))
        api.on("GET", "/v1/deployments", cli_server.ok(deployments=[cli_server.deployment()]))
        assert complete("status", "") == {shop["application"], "other[*]"}
        assert complete("deploy", "--application", "oth") == {"other[*]"}
        assert complete("logs", "d-") == {"d-7K3M9QX2P"}
        assert complete("rollback", "--to", "") == {cli_server.deployment()["version"]}
        assert complete("hold", "--reason", "") == set()


def test_no_agent_is_no_error(complete: Complete) -> None:
    assert complete("status", "") == set()


def test_keys(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "ci.pub").touch()
    assert complete("key", "s") == {"show", "sign"}
    assert complete("key", "show", "c") == {"ci.pub"}
    assert complete("key", "verify", "--keys", "c") == {"ci.pub"}
    assert complete("key", "show", "--password-env", "") == set()
