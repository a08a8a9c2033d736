"""The project's own files, as the tests in this folder look at them."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PYTHON_FOLDERS = ("agent", "tests", "bench", "examples", "hooks", "packaging")
_NOT_OURS = {"__pycache__", "build", "dist"}


@dataclass(frozen=True)
class Module:
    """A parsed Python file. name: "agent.system.http"; a folder's __init__ has the folder's."""

    path: str
    name: str
    text: str
    tree: ast.Module


def files() -> Iterator[Path]:
    """Every file of the checkout that may be ours: no hidden folder but .ci, nothing built."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            name
            for name in folders
            if name == ".ci"
            or not (name.startswith(".") or name in _NOT_OURS or name.endswith(".egg-info"))
        )
        for name in sorted(names):
            yield Path(folder, name)


@functools.cache
def modules(*folders: str) -> tuple[Module, ...]:
    """The Python files below these folders of the checkout; by default below all of ours."""
    wanted = folders or _PYTHON_FOLDERS
    found = []
    for path in files():
        relative = path.relative_to(ROOT)
        if path.suffix == ".py" and relative.parts[0] in wanted:
            text = path.read_text()
            parts = list(relative.with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(str(relative), name, text, ast.parse(text, str(relative))))
    assert found, f"no Python file below {wanted}"
    return tuple(found)


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Every node of a tree with the node that holds it."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def report(problems: list[str], rule: str) -> None:
    """Fail with every problem at once, and the rule that they break."""
    if problems:
        pytest.fail("\n".join([rule, *dict.fromkeys(problems)]), pytrace=False)
