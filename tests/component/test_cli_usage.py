"""What agentctl says to wrong usage, and its help."""

from __future__ import annotations

import pytest

from agent.cli.main import COMMANDS
from tests.component.cli_server import ROOT, agentctl

pytestmark = pytest.mark.slow

EXAMPLE = str(ROOT / "examples" / "deploy.yaml")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["stauts"], "did you mean status?"),
        (["frobnicate"], "see agentctl --help"),
        (["status", "--jsno"], "unrecognized arguments: --jsno"),
        (["status", "a", "b"], "unrecognized arguments: b"),
        (["deploy"], "BUNDLE"),
        (["deploy", "x.zip", "--timeout", "soon"], "cannot read the duration 'soon'"),
        (["history", "--limit", "-3"], "--limit"),
        (["history", "--limit", "many"], "'many' is not a number above 0"),
        (["hold"], "--reason"),
        (["hold", "--reason", ""], "a reason has to say something"),
        (["drain", "--reason", " "], "a reason has to say something"),
        (["deploy", "x.zip", "--unsigned", ""], "a reason has to say something"),
        (["hold", "--reason", "x", "--for", "0s"], "not longer than nothing"),
        (["deploy", "x.zip", "--detach", "--foreground"], "cannot detach"),
        (["deploy", "x.zip", "--config", "x.yaml"], "--config"),
        (["push", "x.zip"], "required: --to"),
        (["push", "--to", "test"], "no bundle is named"),
        (["push", "--to", "test", "--version", "1.214"], "no bundle is named"),
        (["push", "x.zip", "--to", "test", "--environments", "/none"], "cannot read /none"),
        (["push", "x.zip", "--to", "tset", "--environments", EXAMPLE], "did you mean test?"),
        (["push", "/x.zip", "--to", "test", "--environments", EXAMPLE], "there is no such file"),
        (["push", EXAMPLE, "--to", "test", "--environments", EXAMPLE], "it is no zip"),
        (["promote", "shop", "--to", "test"], "required: --from"),
        (
            ["promote", "shop", "--from", "test", "--to", "test", "--environments", EXAMPLE],
            "itself",
        ),
        (["diff", "shop", "test", "--environments", EXAMPLE], "cannot compare test: with what?"),
    ],
)
def test_wrong_usage(args: list[str], said: str) -> None:
    done = agentctl(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command() -> None:
    done = agentctl("--help")
    assert done.returncode == 0
    for name, words in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert words in done.stdout
    assert agentctl().returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    done = agentctl(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: agentctl {command}")
    assert "--socket" in done.stdout


def test_help_tells_exit_codes() -> None:
    shown = agentctl("status", "--help").stdout
    assert all(f"\n  {code} " in shown for code in (0, 3, 4, 150, 151, 152, 153, 154, 156))
    shown = agentctl("push", "--help").stdout
    assert all(f"\n  {code} " in shown for code in (0, 1, 2, 11, 130))
    for command in ("deploy", "rollback", "retry"):
        shown = agentctl(command, "--help").stdout
        assert all(f"\n  {code} " in shown for code in (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 130))
