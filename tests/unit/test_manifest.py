"""Manifests: what is read, what is written, and what a stranger may not make us do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.formats import manifest
from agent.model.errors import AgentError, Code
from agent.model.manifest import BundleRef, Compatible, Manifest, Unpacked

SHA = "ab" * 32
NOON = 1795608000.0  # 2026-11-25T12:00:00Z
WHOLE = Manifest(
    version="1.214",
    application="go-service",
    deployment_group="default",
    bundle=BundleRef(url=f"../bundles/{SHA}.zip", sha256=SHA, size=123),
    unpacked=Unpacked(bytes=456, files=7),
    commit="0e087d4",
    built_at=NOON,
    serial=1795608000,
    expires=NOON + 30 * 86400,
    compatible=Compatible(os=("debian-12", "debian-13"), arch=("amd64",)),
)
TEXT = f"""{{
  "application": "go-service",
  "built_at": "2026-11-25T12:00:00Z",
  "bundle": {{
    "sha256": "{SHA}",
    "size": 123,
    "url": "../bundles/{SHA}.zip"
  }},
  "commit": "0e087d4",
  "compatible": {{
    "arch": [
      "amd64"
    ],
    "os": [
      "debian-12",
      "debian-13"
    ]
  }},
  "deployment_group": "default",
  "expires": "2026-12-25T12:00:00Z",
  "schema": 1,
  "serial": 1795608000,
  "unpacked": {{
    "bytes": 456,
    "files": 7
  }},
  "version": "1.214"
}}
""".encode()


def changed(**keys: object) -> bytes:
    """The whole manifest with keys replaced, by dots: bundle__size; None takes one away."""
    content: dict[str, Any] = json.loads(TEXT)
    for path, value in keys.items():
        *outer, last = path.split("__")
        place = content
        for key in outer:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(content).encode()


def test_a_manifest_has_one_spelling() -> None:
    assert manifest.dump_manifest(WHOLE) == TEXT
    assert manifest.parse_pointer(TEXT) == WHOLE
    assert manifest.parse_manifest(TEXT) == WHOLE


def test_what_is_absent_is_not_written() -> None:
    text = manifest.dump_manifest(Manifest("1.0", "shop"))
    assert json.loads(text) == {"schema": 1, "version": "1.0", "application": "shop"}
    assert manifest.parse_manifest(text) == Manifest("1.0", "shop")


def test_an_unsigned_pointer_may_be_short() -> None:
    bundle = {"url": "https://web.example/1.0.zip", "sha256": SHA, "size": 1}
    text = json.dumps({"version": "1.0", "application": "shop", "bundle": bundle, "more": [1]})
    assert manifest.parse_pointer(text.encode()) == Manifest(
        "1.0",
        "shop",
        bundle=BundleRef(**bundle),  # type: ignore[arg-type]
    )


def test_a_release_json_without_schema_is_a_teams_own() -> None:
    text = b'{"version": "1", "commit": null, "built_at": 5, "compatible": "all"}'
    assert manifest.parse_manifest(text) == Manifest("1")
    with pytest.raises(AgentError, match="commit must be text, is empty"):
        manifest.parse_manifest(text.replace(b"{", b'{"schema": 1, ', 1))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (changed(application=None), "it has no application"),
        (changed(bundle=None), "it has no bundle"),
        (changed(version=None), "it has no version"),
        (changed(bundle__url=None), "bundle has no url"),
        (changed(bundle__sha256=None), "bundle has no sha256"),
        (changed(bundle__size=None), "bundle has no size"),
        (changed(bundle=[]), "bundle must be a mapping (keys with values), is a list"),
        (changed(schema=2), "schema must be 1, the only form that this agent knows, is 2"),
        (changed(schema=True), "schema must be 1, the only form that this agent knows, is true"),
        (changed(bundle__sha256=SHA.upper()), "bundle.sha256 must be 64 hexadecimal digits"),
        (changed(bundle__sha256=SHA + "\n"), "bundle.sha256 must be 64 hexadecimal digits"),
        (changed(bundle__size=0), "bundle.size must be at least 1, is 0"),
        (changed(bundle__size=1.5), "bundle.size must be a whole number, is 1.5"),
        (changed(bundle__size=2**53), "bundle.size must be at most 9007199254740991, is 900719"),
        (changed(bundle__url="file:///etc/shadow"), "bundle.url must be an http, https or s3 URL"),
        (changed(bundle__url="//other.example/x"), "bundle.url must be an http, https or s3 URL"),
        (changed(bundle__url="a b"), "bundle.url must be an http, https or s3 URL"),
        (changed(bundle__url=""), "bundle.url must be an http, https or s3 URL"),
        (changed(serial=-1), "serial must be at least 0, is -1"),
        (changed(serial="1"), "serial must be a whole number, is '1'"),
        (changed(serial=10**19), "serial must be at most"),
        (changed(serial=10**30), "it has a number of 31 digits"),
        (b'{"version": "1", "serial": 1e999}', "it has no application"),
        (
            changed(expires="2026-02-30T00:00:00Z"),
            "expires must be a time of the calendar, is 2026",
        ),
        (
            changed(expires="tomorrow"),
            "expires must be a time such as 2026-11-25T12:00:00Z, is 'to",
        ),
        (changed(expires="2026-11-25T12:00:00+02:00"), "expires must be a time such as"),
        (changed(built_at=1795608000), "built_at must be text, is 1795608000"),
        (changed(compatible__os="debian"), "compatible.os must be a list, is 'debian'"),
        (changed(compatible__arch=["amd64", 5]), "compatible.arch[1] must be text, is 5"),
        (changed(deployment_group="a/b"), "deployment_group must be a word"),
        (changed(commit="a\u202eb"), r"commit must be a word of 1 to 128 signs, is 'a\u202eb'"),
        (b'{"version": "1", "version": "2"}', "it has the key version twice"),
        (b'{"x": {"\\u001b": 1, "\\u001b": 2}}', r"it has the key '\x1b' twice"),
        (b'{"version": NaN}', "it has the number NaN"),
        (TEXT + b" " * 2**16, "it has more than 64 KiB"),
        (b'{"x":' * 13_000, "nested too deep"),
        (b"[" * 60_000, "nested too deep"),
    ],
)
def test_a_pointer_is_refused_with_key_and_value(text: bytes, cause: str) -> None:
    with pytest.raises(AgentError) as caught:
        manifest.parse_pointer(text, where="https://web.example/shop/default/release.json")
    assert cause in caught.value.message
    assert caught.value.code is Code.MANIFEST_REFUSED
    assert caught.value.message.startswith("cannot use the manifest https://web.example/shop/")
    assert "agentctl push" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"serial": -1},
        {"version": "a b"},
        {"version": "\ud800"},
        {"expires": 1.0},
        {"expires": 1e30},
        {"bundle": BundleRef("", SHA, 1)},
        {"compatible": Compatible(os=("",))},
    ],
)
def test_what_could_not_be_read_again_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="cannot write the manifest of") as caught:
        manifest.dump_manifest(dataclasses.replace(WHOLE, **change))
    assert caught.value.message.isprintable()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.sampled_from(sorted(json.loads(TEXT))), VALUES)
def test_any_value_anywhere_is_read_or_refused(key: str, value: object) -> None:
    text = json.dumps({**json.loads(TEXT), key: value}).encode()
    with contextlib.suppress(AgentError):
        found = manifest.parse_pointer(text)
        assert manifest.parse_pointer(manifest.dump_manifest(found)) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with pytest.raises(AgentError):
        manifest.parse_pointer(text)
