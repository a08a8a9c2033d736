"""No file, function, class or parameter list grows past what a reader holds in mind."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.lint.source import Module, modules, report

# what: (wanted, at most)
FILE_LINES = (400, 600)
TEST_FILE_LINES = (400, 700)
FUNCTION_LINES = (40, 60)
CLASS_LINES = (200, 250)
PARAMETERS = (6, 6)  # positional ones; options are keyword-only


def _sizes(module: Module) -> Iterator[tuple[str, int, tuple[int, int]]]:
    is_test = module.path.startswith("tests/")
    lines = module.text.count("\n")
    yield f"{module.path}: {lines} lines", lines, TEST_FILE_LINES if is_test else FILE_LINES
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        place = f"{module.path}:{node.lineno} {node.name}"
        limits = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
        yield f"{place}: {lines} lines", lines, limits
        if not isinstance(node, ast.ClassDef):
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
            count = len([name for name in names if name not in ("self", "cls")])
            yield f"{place}: {count} positional parameters", count, PARAMETERS


def test_sizes() -> None:
    problems = []
    for module in modules():
        for text, size, (wanted, at_most) in _sizes(module):
            if size > at_most:
                problems.append(f"{text}, at most {at_most}")
            elif size > wanted:
                print(f"larger than wanted: {text}, wanted {wanted}")
    report(problems, "Split what is too large (limits: the top of this test):")
