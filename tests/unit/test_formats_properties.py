"""Whatever the text is: no crash, places inside the file, and valid appspecs come back whole."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.formats import appspec, findings, schema, yamldoc
from agent.model.appspec import (
    AclEntry,
    AppSpec,
    FileExistsBehavior,
    FileMapping,
    Hook,
    LifecycleEvent,
    Match,
    Permission,
    ServedBy,
    Service,
    StatusCheck,
)

QUICK = settings(
    max_examples=150,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)

VALID = """version: 0.0
os: linux
files:
  - source: bin/app
    destination: /opt/app
permissions:
  - object: /opt/app
    pattern: "**"
    mode: "0755"
    type: [file, directory]
    acls: ["u:app:rw"]
hooks:
  ApplicationStart:
    - location: scripts/start.sh
      timeout: 300
      runas: root
services:
  - unit: app.service
    status: {url: "http://127.0.0.1:80/status", healthy: {/a: b}, within: 60s}
"""


def check(text: bytes) -> appspec.ParsedAppSpec:
    """Parse, and hold the promises that are made for every text."""
    result = appspec.parse_appspec(text, "f.yml")
    assert (result.appspec is None) == findings.has_error(result.problems)
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", text.decode("utf-8", "replace"))
    for problem in result.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert str(problem).isprintable()
    return result


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yamldoc._LOADER])
def test_random_bytes(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamldoc, "_LOADER", loader)

    @QUICK
    @given(st.binary(max_size=60))
    def holds(text: bytes) -> None:
        check(text)

    holds()


YAML_SIGNS = st.text(alphabet="ab0:-?&*!|>%@`\"'{}[],#~.<=\\ \t\n\r\x85\ufeffé\u00a0", max_size=40)


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yamldoc._LOADER])
def test_random_signs_of_yaml(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamldoc, "_LOADER", loader)

    @QUICK
    @given(YAML_SIGNS)
    def holds(text: str) -> None:
        check(text.encode())

    holds()


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yamldoc._LOADER])
def test_mutated_appspecs(loader: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamldoc, "_LOADER", loader)
    place = st.integers(0, len(VALID))

    @QUICK
    @given(place, st.integers(0, 12), YAML_SIGNS | st.sampled_from(VALID.split()))
    def holds(start: int, length: int, instead: str) -> None:
        check((VALID[:start] + instead + VALID[start + length :]).encode())

    holds()


WORDS = sorted(
    {
        "version",
        "0.0",
        "os",
        "linux",
        "Resources",
        "x-note",
        "overwrite",
        *(event.value for event in LifecycleEvent),
        *(
            key
            for part in [
                schema.schema("appspec"),
                *schema.schema("appspec")["definitions"].values(),
            ]
            for key in part.get("properties", {})
        ),
    }
)
LEAVES = (
    st.sampled_from([*WORDS, "/opt/app", "5m", "0644", "u:a:rw", "../..", "off", "\0", "\ud7ff"])
    | st.integers(-1, 10**18)
    | st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=5)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
SECTIONS = st.sampled_from(["files", "permissions", "hooks", "services", "file_exists_behavior"])


@pytest.mark.slow
@QUICK
@given(st.dictionaries(SECTIONS, TREES, min_size=1))
def test_random_trees(sections: dict[str, Any]) -> None:
    tree = {"version": 0.0, "os": "linux", **sections}
    text = str(yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=True))
    document = yamldoc.parse_yaml(text.encode(), "f.yml")
    assert document.is_readable
    check(text.encode())


@pytest.mark.slow
@QUICK
@given(TREES)
def test_random_trees_as_configuration(tree: object) -> None:
    for finding in schema.validate(tree, "agent"):
        assert finding.message


# valid appspecs

NAMES = st.sampled_from(["a", "b1", "app_c", "d0"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FOLDERS = PATHS.map(lambda path: f"/srv/{path}")
MAPPINGS = st.builds(FileMapping, st.just("") | PATHS, FOLDERS)
ACLS = st.builds(
    AclEntry,
    st.booleans(),
    st.sampled_from(["user", "group"]),
    NAMES,
    st.sampled_from(["rwx", "r--", "---", "r-x"]),
)
PERMISSIONS = st.builds(
    Permission,
    object=FOLDERS,
    pattern=st.sampled_from(["**", "*.sh"]),
    excludes=st.lists(NAMES, max_size=2).map(tuple),
    types=st.sampled_from([("file", "directory"), ("file",), ("directory",)]),
    owner=st.just("") | NAMES,
    group=st.just("") | NAMES,
    mode=st.none() | st.integers(0, 0o7777),
    acls=st.lists(ACLS, max_size=2).map(tuple),
    context=st.just(()) | NAMES.map(lambda name: (("type", name),)),
)
STATUSES = st.builds(
    StatusCheck,
    url=PATHS.map(lambda path: f"http://127.0.0.1:8080/{path}"),
    version=st.sampled_from(["", "/version", "/a~1b/0"]),
    match=st.sampled_from(Match),
    served_by=st.sampled_from(ServedBy),
    healthy=st.dictionaries(PATHS.map("/{}".format), NAMES, max_size=2).map(
        lambda healthy: tuple(healthy.items())
    ),
    within_seconds=st.integers(1, 900).map(float),
    stable_for_seconds=st.integers(0, 900).map(float),
)
SERVICES = st.builds(
    Service,
    unit=NAMES.map("{}.service".format),
    stop_timeout_seconds=st.integers(1, 900).map(float),
    start_timeout_seconds=st.integers(1, 900).map(float),
    status=st.none() | STATUSES,
)


@st.composite
def appspecs(draw: st.DrawFn) -> AppSpec:
    hooks = {}
    for event in draw(st.sets(st.sampled_from(LifecycleEvent))):
        hook = st.builds(
            Hook,
            st.just(event),
            PATHS,
            st.integers(1, 10_000).map(float),
            st.just("") | NAMES,
            st.booleans(),
        )
        hooks[event] = tuple(draw(st.lists(hook, min_size=1, max_size=3)))
    return AppSpec(
        filename="f.yml",
        files=tuple(draw(st.lists(MAPPINGS, max_size=3))),
        file_exists_behavior=draw(st.none() | st.sampled_from(FileExistsBehavior)),
        permissions=tuple(
            draw(st.lists(PERMISSIONS, max_size=3, unique_by=lambda each: each.object))
        ),
        hooks=hooks,
        services=tuple(draw(st.lists(SERVICES, max_size=2, unique_by=lambda each: each.unit))),
    )


def as_yaml(spec: AppSpec) -> str:
    """The appspec as somebody could have written it."""
    tree: dict[str, Any] = {"version": 0.0, "os": "linux"}
    tree["files"] = [
        {"source": each.source or "/", "destination": each.destination} for each in spec.files
    ]
    if spec.file_exists_behavior:
        tree["file_exists_behavior"] = spec.file_exists_behavior.value
    tree["permissions"] = [
        {
            "object": each.object,
            "pattern": each.pattern,
            "except": list(each.excludes),
            "type": list(each.types),
            "owner": each.owner,
            "group": each.group,
            "mode": None if each.mode is None else f"{each.mode:o}",
            "acls": [
                f"{'d:' if acl.default else ''}{acl.kind}:{acl.name}:{acl.perms}"
                for acl in each.acls
            ],
            "context": dict(each.context) or None,
        }
        for each in spec.permissions
    ]
    tree["hooks"] = {
        event.value: [
            {
                "location": each.location,
                "timeout": int(each.timeout_seconds),
                "runas": each.runas,
                "sudo": each.sudo,
            }
            for each in hooks
        ]
        for event, hooks in spec.hooks.items()
    }
    tree["services"] = [_service(each) for each in spec.services]
    return str(yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False))


def _service(service: Service) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "unit": service.unit,
        "stop_timeout": f"{service.stop_timeout_seconds:.0f}s",
        "start_timeout": service.start_timeout_seconds,
    }
    if service.status:
        tree["status"] = {
            "url": service.status.url,
            "version": service.status.version or "off",
            "match": service.status.match.value,
            "served_by": service.status.served_by.value,
            "healthy": dict(service.status.healthy),
            "within": service.status.within_seconds,
            "stable_for": f"{service.status.stable_for_seconds:.0f}",
        }
    return tree


@pytest.mark.slow
@QUICK
@given(appspecs())
def test_valid_appspecs_come_back_whole(spec: AppSpec) -> None:
    result = check(as_yaml(spec).encode())
    assert result.appspec == spec, result.problems
