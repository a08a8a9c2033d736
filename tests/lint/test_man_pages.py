"""The man pages name everything that there is, and nothing that is gone; their markup is sound."""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.__main__ import _parser
from agent.cli.exits import Exit, StatusExit
from agent.formats import schema
from tests import cli_options
from tests.lint.source import ROOT, modules

PAGES = ROOT / "packaging" / "man"
NAMES = ("agentctl.1", "deploy-agent.8", "agent.yaml.5", "deploy-agent-appspec.5")


def read(name: str) -> str:
    return (PAGES / name).read_text()


def words(text: str, macro: str) -> set[str]:
    """Everything that is set in one macro of mdoc(7): Fl for options, Cm for keys, Ev, Ar."""
    found = set()
    for line in text.splitlines():
        inside = False
        for word in line.removeprefix(".").split() if line.startswith(".") else ():
            if re.fullmatch(r"[A-Z][a-z]", word):
                inside = word == macro
            elif inside and word not in {",", ".", ":", ";", "|", "(", ")"}:
                found.add(word)
    return found


def section(text: str, title: str) -> str:
    """The section or subsection that begins with these words, up to the next one."""
    found = re.search(rf"^\.S[hs] {re.escape(title)}\b.*?(?=^\.S[hs]|\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found[0]


# agentctl and the daemon


def test_every_command_has_its_section() -> None:
    titles = re.findall(r"^\.Ss ([a-z]+)\b", read("agentctl.1").split(".Sh COMMANDS")[1], re.M)
    assert titles == list(cli_options.ALL)


@pytest.mark.parametrize("command", cli_options.ALL)
def test_every_option_stands_in_the_section_of_its_command(command: str) -> None:
    text = section(read("agentctl.1").split(".Sh COMMANDS")[1], command)
    assert {f"-{name}" for name in words(text, "Fl")} == cli_options.options(command)
    assert cli_options.arguments(command) <= words(text, "Ar")


def test_options_of_every_command() -> None:
    shown = section(read("agentctl.1"), "Options of every command")
    assert words(shown, "Fl") == {"h", "-help", "-socket", "-version"}


def test_options_of_the_daemon() -> None:
    actions = [each for each in _parser()._actions if each.help != argparse.SUPPRESS]
    expected = {name for action in actions for name in action.option_strings}
    assert {f"-{name}" for name in words(read("deploy-agent.8"), "Fl")} == expected


def test_exit_codes() -> None:
    of_status, of_others = section(read("agentctl.1"), "EXIT STATUS").split("Of the other commands")
    for text, expected in ((of_status, {*StatusExit, Exit.USAGE}), (of_others, set(Exit))):
        assert {int(code) for code in re.findall(r"^\.It (\d+)", text, re.M)} == set(expected)


def test_environment_variables_that_are_read() -> None:
    pattern = re.compile(r'(?:environ\.get|_xdg)\("([A-Z_]+)"')
    read_in_code = {name for each in modules("agent") for name in pattern.findall(each.text)}
    named = words(read("agentctl.1"), "Ev") | words(read("deploy-agent.8"), "Ev")
    assert {"NO_COLOR", "DEPLOY_AGENT_SOCKET"} <= read_in_code
    assert read_in_code <= named


# the files


def keys(part: dict[str, Any], definitions: dict[str, Any], above: str = "") -> Iterator[str]:
    """The keys of a schema that have no further keys below them, with dots."""
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    inner = [*part.get("allOf", []), *([part["items"]] if "items" in part else [])]
    for each in inner:
        yield from keys(each, definitions, above)
    for name, each in part.get("properties", {}).items():
        path = f"{above}.{name}" if above else name
        below = list(keys(each, definitions, path))
        yield from below or [path]


def test_every_key_of_the_configuration() -> None:
    whole = schema.schema("agent")
    expected = set(keys(whole, whole["definitions"]))
    named = words(read("agent.yaml.5"), "Cm")
    assert expected - named == set()
    assert {word for word in named if "." in word} - expected == set()


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_default_of_the_configuration() -> None:
    # the file that the .deb installs; tests/unit holds it against the code
    lines = (ROOT / "packaging" / "agent.yaml").read_text().splitlines()
    shown = [line[1:] for line in lines if re.match(r"#( {2}|[a-z_]+:)", line)]
    defaults = yaml.safe_load("\n".join(shown))
    for example in ("sources", "timeouts"):
        del defaults[example]
    flat: dict[str, str] = {}
    for key, value in defaults.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): _written(each) for name, each in inner.items()}
    items = r"^\.It Cm (\S+) : (?:Li|Pa) (\S+)$"
    assert dict(re.findall(items, read("agent.yaml.5"), re.M)) == flat


def test_every_key_of_an_appspec() -> None:
    whole = schema.schema("appspec")
    expected = set()
    for path in keys(whole, whole["definitions"]):
        is_hook = path.startswith("hooks.")
        expected |= set(path.split(".")[1:]) if is_hook else {path}
    named = words(read("deploy-agent-appspec.5"), "Cm")
    assert expected - named == set()
    assert {word for word in named if "." in word} - expected - {
        "permissions.context", "services.consul", "services.environment", "hooks.retry",
    } == set()  # fmt: skip


def test_environment_of_hooks() -> None:
    tree = ast.parse((ROOT / "agent" / "hooks" / "environment.py").read_text())
    texts = [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)]
    given = {text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z_]+", text)}
    assert "RELEASE_DIR" in given
    assert words(section(read("deploy-agent-appspec.5"), "ENVIRONMENT"), "Ev") == given


# markup


def test_pages_are_those_that_the_deb_installs() -> None:
    listed = (ROOT / "packaging/debian/deploy-agent.manpages").read_text().split()
    assert sorted(Path(each).name for each in listed) == sorted(NAMES)
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_finds_nothing(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", PAGES / name], capture_output=True, text=True, check=False
    )
    # it looks for pages that are referred to on this machine, where ours are not installed
    problems = [line for line in done.stdout.splitlines() if "referenced manual" not in line]
    assert problems == []
    referred = re.findall(r"^\.(?:Xr|It Xr) (\S+) (\d)", read(name), re.M)
    ours = {tuple(page.rsplit(".", 1)) for page in NAMES}
    theirs = {
            "head", "journalctl", "minisign", "needrestart", "setfacl", "systemctl", "systemd",
            "systemd.exec",
        }  # fmt: skip
    assert {page for page in referred if page not in ours and page[0] not in theirs} == set()


@pytest.mark.parametrize("name", NAMES)
def test_groff_finds_nothing(name: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--local-file", PAGES / name],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "SEE ALSO" in done.stdout
