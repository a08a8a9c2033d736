"""Rules of STYLE.md that a few lines can check."""

from __future__ import annotations

import ast
import re
from pathlib import PurePath

from tests.lint.source import ROOT, Module, modules, report

# A failure that nobody foresaw is logged with its traceback here, and nowhere else.
BROAD_EXCEPT = {"agent/poller.py", "agent/rowwork.py", "agent/api.py", "agent/cli/main.py"}
# What looks after Consul must not end the agent, which deploys without it.
BROAD_EXCEPT |= {"agent/upkeep/registrations.py"}
# Raised again, in the thread that asked for the work.
BROAD_EXCEPT |= {"agent/archive/ahead.py"}
# Becomes a finding: one subject that fails must not hide the others.
BROAD_EXCEPT |= {"agent/doctor/rounds.py"}


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(n, ast.Name) and n.id in ("Exception", "BaseException") for n in names)


def _broad_excepts(module: Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node):
            last = node.body[-1]
            goes_on = isinstance(last, ast.Raise) and last.exc is None
            if not goes_on:
                found.append(f"{module.path}:{node.lineno}")
    return found


def test_broad_excepts_stand_at_the_edges() -> None:
    found = [place for module in modules("agent") for place in _broad_excepts(module)]
    problems = [place for place in found if place.split(":")[0] not in BROAD_EXCEPT]
    report(problems, f"Only {sorted(BROAD_EXCEPT)} may catch everything without raising it again:")


def test_every_module_says_what_it_is_for() -> None:
    problems = []
    for module in modules():
        if PurePath(module.path).name == "__init__.py" and not module.text:
            continue
        sentence = (ast.get_docstring(module.tree) or "").split("\n\n")[0].strip()
        if not sentence.endswith("."):
            problems.append(module.path)
    report(problems, "A module begins with one sentence, and a full stop, on what it is for:")


def _sleeps(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="sleep"), args=[ast.Constant(value=0)]):
            return False  # lets others on the loop go first
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time" | "asyncio"), attr="sleep")):
            return True
        case ast.ImportFrom(module="time" | "asyncio", names=names):
            return any(alias.name == "sleep" for alias in names)
    return False


def test_tests_do_not_sleep() -> None:
    problems = [
        f"{module.path}:{node.lineno}"
        for module in modules("tests")
        if module.path != "tests/waiting.py"
        for node in ast.walk(module.tree)
        if _sleeps(node)
    ]
    report(problems, "Wait for something, with a deadline: tests.waiting.wait_until")


def test_changelog_has_one_line_per_change() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    problems = []
    heading = re.compile(r"## (Unreleased|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\))")
    seen_heading = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("## "):
            seen_heading = True
            if not heading.fullmatch(line):
                problems.append(f"CHANGELOG.md:{number}: {line}")
        elif seen_heading and line and not re.fullmatch(r"- [A-Z`].*[.)]", line):
            problems.append(f"CHANGELOG.md:{number}: {line}")
    assert seen_heading
    report(
        problems, "`## Unreleased` or `## 1.2.3 (2026-01-31)`, then `- A sentence.` a line each:"
    )
