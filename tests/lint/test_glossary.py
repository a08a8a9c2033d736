"""One word for one thing: the words that STYLE.md rules out are not used as names or in texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.lint.source import ROOT, Module, files, modules, parents, report

# (file, word): whose word it is there
ALLOWED = {
    ("agent/archive/kinds.py", "package"): "Debian's",
    ("agent/cli/progress.py", "task"): "rich's",
    ("agent/api.py", "handler"): "aiohttp's",
    ("agent/daemon.py", "task"): "asyncio's",
    ("agent/doctor/applications.py", "util"): "a Debian package's name",
    ("agent/consul/adapter.py", "node"): "Consul's",
    ("agent/consul/answers.py", "node"): "Consul's",
    ("agent/doctor/consul.py", "node"): "Consul's",
    ("agent/files/permissions.py", "util"): "a Debian package's name",
    ("agent/formats/settings.py", "instance"): "EC2's",
    ("agent/formats/schema.py", "instance"): "jsonschema's",
    ("agent/formats/traps.py", "node"): "a program's name",
    ("agent/formats/yaml_errors.py", "node"): "PyYAML's",
    ("agent/formats/yamldoc.py", "node"): "PyYAML's",
    ("agent/hooks/sandbox.py", "task"): "systemd's",
    ("agent/rowwork.py", "task"): "asyncio's",
    ("agent/remote/imds.py", "instance"): "EC2's",
    ("agent/remote/s3_errors.py", "perform"): "AWS's, in a message",
    ("tests/lint/source.py", "node"): "ast's",
    ("tests/lint/test_glossary.py", "node"): "ast's",
    ("tests/lint/test_house.py", "handler"): "ast's",
    ("tests/lint/test_house.py", "node"): "ast's",
    ("tests/lint/test_layers.py", "node"): "ast's",
    ("tests/lint/test_sizes.py", "node"): "ast's",
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _ruled_out(heading: str) -> frozenset[str]:
    """The words of one line of STYLE.md, such as "Not used as names or in texts: job, task."."""
    text = (ROOT / "STYLE.md").read_text()
    found = re.search(rf"^{re.escape(heading)}: (.+?)\.$", text, re.MULTILINE)
    assert found, f"STYLE.md has no line {heading!r}"
    return frozenset(word.strip() for word in found[1].split(","))


NEVER = _ruled_out("Not used as names or in texts")
NOT_IN_DOCS = _ruled_out("Nor in docs, where they would mean something of ours")


def _words(text: str) -> Iterator[str]:
    """The words of a name or a sentence, in small letters and without a plural's s."""
    for word in _WORD.findall(text):
        small = word.lower()
        yield small
        yield small.removesuffix("s")


def _names(module: Module) -> Iterator[tuple[int, str]]:
    """Every name that the module gives to something. Names that others gave are not ours."""
    for node in ast.walk(module.tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def _texts(module: Module) -> Iterator[tuple[int, str]]:
    """Every string that is no docstring."""
    holders = parents(module.tree)
    for node in ast.walk(module.tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and not isinstance(holders[node], ast.Expr):
            yield node.lineno, node.value


def _check(module: Module, line: int, text: str) -> Iterator[str]:
    for word in sorted(set(_words(text)) & NEVER):
        if (module.path, word) not in ALLOWED:
            yield f"{module.path}:{line}: {word!r} in {text!r}"


def test_names() -> None:
    problems = []
    for module in modules():
        problems += _check(module, 1, module.path.rpartition("/")[2])
        for line, name in _names(module):
            problems += _check(module, line, name)
            if name == "data":
                problems.append(f"{module.path}:{line}: data says nothing; what is it?")
    report(problems, "These names are not in our glossary (STYLE.md):")


def test_no_get_and_no_process_as_a_verb() -> None:
    problems = []
    for module in modules():
        for node in ast.walk(module.tree):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and re.match(r"_*(get|process)_", node.name):
                problems.append(f"{module.path}:{node.lineno}: {node.name}")
    report(problems, "Say what it does: parse_, load, read, fetch, ensure_, … (STYLE.md):")


def test_texts_that_users_see() -> None:
    problems = []
    for module in modules("agent"):
        for line, text in _texts(module):
            problems += _check(module, line, text)
    report(problems, "These texts use words that are not in our glossary (STYLE.md):")


def test_docs() -> None:
    problems = []
    for path in files():
        if path.suffix == ".md" and path != ROOT / "STYLE.md":
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                found = sorted(set(_words(line)) & NOT_IN_DOCS)
                problems += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in found]
    report(problems, "These docs use words that are not in our glossary (STYLE.md):")
