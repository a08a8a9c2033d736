"""Keys to variables and the text of an EnvironmentFile, which a shell reads as systemd does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.environment import variables
from agent.environment.variables import describe_change, parse_values, write_text
from agent.model.consul import KvSnapshot
from agent.model.errors import AgentError, Code

_SHOW = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"


def snapshot(**values: bytes) -> KvSnapshot:
    return KvSnapshot("config/web/", 7, values)


def read_by_a_shell(path: Path, text: str) -> dict[str, str]:
    path.write_text(text, newline="")
    done = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . {path}; exec {_SHOW}"],
        env={},
        capture_output=True,
        timeout=8,
        check=True,
    )
    found = json.loads(done.stdout)
    return {name: value for name, value in found.items() if name.startswith("V_")}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_every_value_comes_back(tmp_path_factory: pytest.TempPathFactory, given: list[str]) -> None:
    values = {f"V_{number}": value for number, value in enumerate(given)}
    path = tmp_path_factory.mktemp("env") / "env"
    assert read_by_a_shell(path, write_text("config/web", values)) == values


def test_text() -> None:
    text = write_text("config/web", {"B": 'a "b" \\ $c `d`\nnext', "A": ""})
    head, *lines = text.split("\n")
    assert (
        head == "# Written by deploy-agent from Consul, config/web/: what is changed here is lost."
    )
    assert lines == ['A=""', 'B="a \\"b\\" \\\\ \\$c \\`d\\`', 'next"', ""]


def test_all_bad_keys_are_named_at_once_and_no_value() -> None:
    found = snapshot(
        **{
            "GOOD": b"secret-0",
            "not-a-name": b"secret-1",
            "1A": b"secret-2",
            "NUL": b"secret-3\0",
            "LATIN": b"secret-4\xff",
            "LONG": b"secret-5" * 20_000,
            "a/B": b"secret-6",
        }
    )
    with pytest.raises(AgentError) as caught:
        parse_values(found)
    error = caught.value
    assert error.code is Code.ENVIRONMENT_REFUSED
    assert error.details == (
        "config/web/1A: no name of a variable",
        "config/web/LATIN: its value is not UTF-8",
        "config/web/LONG: its value is longer than 128 KiB",
        "config/web/NUL: its value has a byte 0",
        "config/web/a/B: no name of a variable",
        "config/web/not-a-name: no name of a variable",
    )
    assert "and 5 more" in error.message
    assert "secret" not in f"{error.message}{error.details}{error.remedy}"


def test_none_is_an_error_unless_it_is_said() -> None:
    with pytest.raises(AgentError, match="there are none"):
        parse_values(snapshot())
    assert parse_values(snapshot(**{".empty": b""})) == {}
    assert parse_values(snapshot(**{".empty": b"", "A": b"1"})) == {"A": "1"}


def test_change_in_words_has_names_only() -> None:
    old = {"A": "secret-1", "B": "secret-2", "C": "secret-3"}
    new = {"A": "secret-1", "B": "other", "D": "secret-4"}
    assert describe_change(old, new) == "1 added, 1 changed, 1 removed (B, C, D)"
    assert describe_change(old, old) == "nothing changed"
    assert variables.digest_of(old) != variables.digest_of(new)
    assert variables.digest_of(dict(reversed(old.items()))) == variables.digest_of(old)
