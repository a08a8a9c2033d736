"""The quick yes of agent.formats.shape is never another answer than jsonschema's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from agent.formats import schema, shape, yamldoc
from tests.unit.test_formats_properties import QUICK, TREES, VALID

ROOT = Path(__file__).resolve().parents[2]
CORPUS = sorted((Path(__file__).parent / "appspec_corpus").glob("*.yml"))
PAIRS = [("appspec", path) for path in CORPUS] + [("agent", ROOT / "packaging" / "agent.yaml")]
PAIRS += [("environments", ROOT / "examples" / "deploy.yaml")]


def is_allowed(value: object, name: str) -> bool:
    """What jsonschema says."""
    return next(iter(schema._validator(name).iter_errors(value)), None) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), PAIRS, ids=lambda each: getattr(each, "name", each))
def test_same_answer_for_real_files(name: str, path: Path) -> None:
    document = yamldoc.parse_yaml(path.read_bytes(), path.name)
    if not document.is_readable:
        return
    value = document.value
    assert shape.is_allowed(value, schema.schema(name)) == is_allowed(value, name)


@pytest.mark.parametrize("name", ["appspec", "agent"])
def test_same_answer_for_every_change_of_a_value(name: str) -> None:
    """Each value of a valid file is replaced by each of these, one at a time."""
    path = ROOT / "packaging" / "agent.yaml"
    text = VALID.encode() if name == "appspec" else path.read_bytes()
    whole = yamldoc.parse_yaml(text, "f.yml").value
    instead: list[Any] = [None, True, False, 0, 1, 1.0, -1, 10**9, float("inf"), float("nan")]
    instead += ["", "off", "a\n", "/a", "5m", "x" * 300, [], [1], ["a"], {}, {"x-a": 1}, {"a": 1}]
    for place in _places(whole):
        for value in instead:
            changed = _changed(whole, place, value)
            expected = is_allowed(changed, name)
            assert shape.is_allowed(changed, schema.schema(name)) == expected, (place, value)


@pytest.mark.slow
@QUICK
@given(TREES)
def test_same_answer_for_random_trees(tree: object) -> None:
    for name in ("appspec", "agent"):
        assert shape.is_allowed(tree, schema.schema(name)) == is_allowed(tree, name)


def test_unknown_keyword_is_no_yes() -> None:
    for value in ("text", 1, [], {}):
        assert not shape.is_allowed(value, {"oneOf": [True]})
        assert not shape.is_allowed(value, {"not": {"type": "null"}})


@pytest.mark.slow
def test_jsonschema_is_not_imported_for_what_is_right(tmp_path: Path) -> None:
    for name in ("bin/app", "scripts/start.sh"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / "appspec.yml").write_text(VALID)
    (tmp_path / "agent.yaml").write_text("state_dir: /srv/state\npoll_interval: 5s\n")
    program = (
        "import sys; from pathlib import Path; from agent import daemon\n"
        "from agent.formats import appspec, settings\n"
        f"appspec.load_appspec(Path({str(tmp_path)!r}))\n"
        f"settings.load_settings(Path({str(tmp_path / 'agent.yaml')!r}), user_defaults=False)\n"
        "names = {'jsonschema', 'difflib', 'rich', 'tarfile', 'zipfile', 'psutil'}\n"
        "sys.exit(' '.join(sorted(names & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=10
    )
    assert done.stderr.split() == []


def _places(value: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    if isinstance(value, list):
        inner = list(enumerate(value))
    return [place, *(found for key, each in inner for found in _places(each, (*place, key)))]


def _changed(value: Any, place: tuple[Any, ...], instead: object) -> Any:
    if not place:
        return instead
    copy = value.copy()
    copy[place[0]] = _changed(value[place[0]], place[1:], instead)
    return copy
