"""Imports point down only, and each third-party library is known to one file."""

from __future__ import annotations

import ast
import functools
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lint.source import Module, modules, parents, report

# From the bottom up. A room is a folder of agent/ or a file beside them; rooms of one line do not
# know each other. Nothing imports what stands above it.
LAYERS = (
    ("model",),
    ("formats",),
    ("system",),
    ("archive", "files", "hooks", "remote", "consul"),
    ("units",),
    ("store", "sources"),
    ("traffic", "environment"),
    ("steps",),
    ("lifecycle",),
    ("recovery", "retention", "record"),
    ("equipment", "views"),
    ("rowwork", "planning", "named"),
    ("runner",),
    ("queue",),
    ("poller", "upkeep"),
    ("status", "heartbeat"),
    ("api",),
    ("daemon",),
    ("__main__",),
)
SIDEWAYS = {
    ("files", "archive"): "installing reads the index that unpacking wrote",
}
NEVER = {
    ("steps", "store"): "steps return results, and the runner alone saves",
    ("traffic", "store"): "the same",
}
# These stand beside the layers and know only what is listed here.
APART = {
    "client": ("model.errors",),
    "publish": ("model", "formats", "system", "remote", "archive"),
    "doctor": ("client", "model", "formats", "system", "store", "sources", "consul", "traffic"),
    "cli": ("client", "model", "formats", "publish"),
}
LIBRARIES = {
    "yaml": ("agent/formats/yamldoc.py",),
    "jsonschema": ("agent/formats/schema.py",),
    "jsonpointer": ("agent/system/http.py",),
    "aiohttp": ("agent/system/http.py", "agent/remote/web.py", "agent/consul/transport.py"),
    "yarl": ("agent/remote/web.py",),
    "botocore": ("agent/remote/aws.py",),
    "aiohttp.web": ("agent/api.py", "agent/daemon.py"),
    "consul": ("agent/consul/calls.py",),
    "psutil": ("agent/system/processes.py", "agent/system/listeners.py"),
    "systemd": ("agent/system/journal.py",),
    "rich": ("agent/cli/progress.py",),
    "pathspec": ("agent/publish/ignore.py",),
    "cryptography": ("agent/system/ed25519.py",),
    "isal": ("agent/archive/inflate.py",),
}
# (file, what it imports in a function): why
LATE_IMPORTS = {
    ("agent/formats/schema.py", "jsonschema"): "3 MB of the idle daemon, only for a mistake",
    ("agent/formats/schema.py", "jsonschema.exceptions"): "the same",
    (
        "agent/system/processes.py",
        "psutil",
    ): "1 MB of the idle daemon, only where there is no systemd",
    ("agent/system/ed25519.py", "cryptography"): "14 MB on Debian 12, only where there are keys",
    ("agent/system/ed25519.py", "cryptography.hazmat.primitives"): "the same",
    ("agent/system/ed25519.py", "cryptography.hazmat.primitives.asymmetric"): "the same",
    ("agent/system/libc.py", "ctypes"): "0.3 MB of the idle daemon",
    ("agent/daemon.py", "agent.consul.adapter"): "0.5 MB, only where Consul is used",
    ("agent/daemon.py", "agent.upkeep.keywatch"): "the same",
    ("agent/daemon.py", "agent.upkeep.registrations"): "the same",
    ("agent/daemon.py", "agent.traffic.control"): "the same",
    ("agent/steps/context.py", "agent.traffic.control"): "the same",
    ("agent/daemon.py", "agent.sources.gate"): "1 MB, only where a store is a source",
    ("agent/daemon.py", "agent.sources.pointer"): "the same",
    ("agent/sources/bundles.py", "agent.remote.stores"): "the same",
    ("agent/sources/groups.py", "agent.remote.imds"): "the same: only on EC2",
    ("agent/sources/keys.py", "agent.system.keyring"): "0.2 MB, only where there are keys",
    ("agent/remote/stores.py", "agent.remote.s3_store"): "1 MB, only where S3 is used: XML",
    ("agent/remote/s3_requests.py", "agent.remote.aws"): "25 MB and 170 ms, the same: botocore",
    ("agent/system/late.py", "import_module()"): "what it is there for",
    ("agent/consul/calls.py", "consul"): "5 MB and 0.1 s, only where Consul is used",
    ("agent/archive/inflate.py", "isal"): "0.7 MB of the idle daemon, only for an archive",
    ("agent/archive/folder.py", "tarfile"): "only for a folder as a bundle",
    ("agent/formats/wording.py", "difflib"): "the same: what was probably meant",
    ("agent/system/listeners.py", "psutil"): "1 MB, only for an address beyond loopback",
    ("agent/cli/main.py", "import_module()"): "only the command that is asked for",
    ("agent/cli/main.py", "difflib"): "only for a mistyped command",
    ("agent/cli/main.py", "traceback"): "only for a defect of ours",
    ("agent/cli/logs.py", "agent.formats.settings"): "only where no agent answers: YAML",
    ("agent/cli/connection.py", "agent.cli.foreground"): "only for --foreground: subprocess",
    ("agent/cli/bars.py", "agent.cli.progress"): "only on a terminal: rich",
}


@dataclass(frozen=True)
class Import:
    """target: a module, as far as it is known ("agent.system.http", "aiohttp.web")."""

    module: Module
    target: str
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"{self.module.path}:{self.line} imports {self.target}"


@functools.cache
def imports() -> tuple[Import, ...]:
    known = {module.name for module in modules("agent")}
    return tuple(item for module in modules("agent") for item in _imports_of(module, known))


def _imports_of(module: Module, known: set[str]) -> Iterator[Import]:
    holders = parents(module.tree)
    for node in ast.walk(module.tree):
        late = _is_in_function(node, holders)
        for target in _targets(node, known):
            yield Import(module, target, node.lineno, late)


def _targets(node: ast.AST, known: set[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(base), level=0, names=names):
            for alias in names:
                full = f"{base}.{alias.name}"
                yield full if full in known or full in LIBRARIES else base
        case ast.Call(func=ast.Name(id="__import__" | "import_module" as name)):
            yield f"{name}()"
        case ast.Call(func=ast.Attribute(attr="import_module" as name)):
            yield f"{name}()"


def _is_in_function(node: ast.AST, holders: dict[ast.AST, ast.AST]) -> bool:
    while node in holders:
        node = holders[node]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return True
    return False


def _inner(name: str) -> str:
    """A name below agent ("agent.system.http": "system.http"); "" for agent itself."""
    return name.removeprefix("agent").removeprefix(".")


def _ours() -> Iterator[tuple[Import, str, str]]:
    """Imports of our own modules, with both names below agent."""
    for item in imports():
        if item.target.split(".")[0] == "agent":
            target = _inner(item.target)
            if target:  # the package itself holds the version and may be known to all
                yield item, _inner(item.module.name), target


def _is_below(target: str, allowed: tuple[str, ...]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in allowed)


def _rank(room: str) -> int | None:
    return next((rank for rank, rooms in enumerate(LAYERS) if room in rooms), None)


def test_every_room_has_its_place() -> None:
    rooms = {_inner(module.name).split(".")[0] for module in modules("agent")} - {""}
    problems = [room for room in sorted(rooms) if _rank(room) is None and room not in APART]
    report(problems, "Give these rooms a place in LAYERS or APART:")


def test_imports_point_down() -> None:
    problems = []
    for item, importer, target in _ours():
        room, other = importer.split(".")[0], target.split(".")[0]
        if room in APART:
            allowed = (*APART[room], room)
            wrong = not _is_below(target, allowed)
        else:
            own, its = _rank(room), _rank(other)
            wrong = (room, other) in NEVER
            if room != other and (room, other) not in SIDEWAYS:
                wrong = wrong or own is None or its is None or its >= own
        if wrong:
            problems.append(f"{item}; {NEVER.get((room, other), '')}".rstrip("; "))
    report(problems, "Imports point down only (LAYERS):")


def test_steps_do_not_know_each_other() -> None:
    problems = [
        str(item)
        for item, importer, target in _ours()
        if importer.startswith("steps.")
        and target.startswith("steps")
        and target not in ("steps.context", importer)
    ]
    report(problems, "A step imports no other step (steps.context excepted):")


def test_imports_stand_at_the_top() -> None:
    late = {(item.module.path, item.target) for item in imports() if item.in_function}
    late |= {(item.module.path, item.target) for item in imports() if item.target.endswith("()")}
    report(
        [f"{path} imports {target}" for path, target in sorted(late - set(LATE_IMPORTS))],
        "An import inside a function needs a measured reason, in LATE_IMPORTS:",
    )
    report(
        [f"{path} {target}" for path, target in sorted(set(LATE_IMPORTS) - late)],
        "Listed in LATE_IMPORTS, and not there any more:",
    )


def test_each_library_is_known_to_one_file() -> None:
    problems = []
    for item in imports():
        top = item.target.split(".")[0]
        if top == "agent" or top in sys.stdlib_module_names or item.target.endswith("()"):
            continue
        library = next(
            (name for name in sorted(LIBRARIES, reverse=True) if _is_below(item.target, (name,))),
            None,
        )
        if library is None or item.module.path not in LIBRARIES[library]:
            problems.append(str(item))
    report(problems, "A third-party library is imported by its adapter only (LIBRARIES):")


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for item, importer, target in _ours():
        if not item.in_function:
            graph.setdefault(importer, set()).add(target)
    cycles = []
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycles.append(" <- ".join(error.args[1]))
    report(cycles, "These modules import each other:")
