"""Durations, sizes, release.json, and the words of messages."""

from __future__ import annotations

import json

import pytest

from agent.formats import manifest, quantities, wording
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (30, 30.0),
        (0, 0.0),
        (1.5, 1.5),
        ("30", 30.0),
        ("30s", 30.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1.5 h", 5400.0),
        (" 2d ", 172800.0),
    ],
)
def test_parse_duration(value: object, seconds: float) -> None:
    assert quantities.parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "octets"),
    [(1000, 1000), ("1000", 1000), ("64M", 64 * 2**20), ("1.5G", 3 * 2**29), ("20 K", 20480)],
)
def test_parse_size(value: object, octets: int) -> None:
    assert quantities.parse_size(value) == octets


NO_QUANTITIES = ["", "s", "soon", "-5", "5x", "1h30m", "1e9", "٣", "5 5", "9" * 50, None, [], {}]
NO_NUMBERS = [True, -1, float("nan"), float("inf"), 10**30]


@pytest.mark.parametrize("value", [*NO_QUANTITIES, *NO_NUMBERS, "5M"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(AgentError) as caught:
        quantities.parse_duration(value)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.remedy


@pytest.mark.parametrize("value", [*NO_QUANTITIES, *NO_NUMBERS, "5m", "64MB"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(AgentError):
        quantities.parse_size(value)


def test_parse_manifest() -> None:
    assert manifest.parse_manifest(b'{"version": "1.214"}') == Manifest("1.214")
    text = '{"version": "1.0~rc1+é", "application": "shop", "serial": 5}'.encode()
    assert manifest.parse_manifest(text) == Manifest("1.0~rc1+é", "shop")  # serial: a team's own


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "it is no JSON"),
        (b"\xff", "it is no UTF-8 text"),
        (b"\xef\xbb\xbf{}", "it is no JSON"),
        (b"[1]", "it is no JSON object"),
        (b"{}", "it has no version"),
        (b'{"version": 1.214}', "version must be text, is 1.214"),
        (b'{"version": ""}', "version must be a word"),
        (b'{"version": ".."}', "version must be a word"),
        (b'{"version": "a/b"}', "version must be a word"),
        (b'{"version": "a b"}', "version must be a word"),
        (b'{"version": "a\\u0000"}', "version must be a word"),
        (b'{"version": "\\ud800"}', "version must be a word"),
        (json.dumps({"version": "9" * 129}).encode(), "version must be a word of 1 to 128 signs"),
        (b'{"version": "1", "application": null}', "application must be text, is empty"),
        (b"[" * 100_000, "it is no JSON"),
        (b'{"version": ' + b"9" * 5000 + b"}", "it has a number of 5000 digits"),
        (b" " * (2**20 + 1), "it has more than 1024 KiB"),
    ],
)
def test_rubbish_is_no_manifest(text: bytes, cause: str) -> None:
    with pytest.raises(AgentError) as caught:
        manifest.parse_manifest(text)
    assert caught.value.code is Code.BUNDLE_REFUSED
    assert cause in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@host/x?token=abc", "'http://...@host/x?...'"),
        (
            "s3://key@bucket/" + "x" * 90,
            "'s3://...@bucket/xxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxx'",
        ),
        ("http://host/a@b", "'http://host/a@b'"),
        ("what is this?", "'what is this?'"),
    ],
)
def test_passwords_and_queries_of_urls_are_in_no_message(url: str, shown: str) -> None:
    assert wording.shown(url) == shown
    assert wording.shortened(url) == shown[1:-1]


def test_values_in_messages() -> None:
    assert wording.shown("a\x1b[31m") == r"'a\x1b[31m'"
    assert wording.shown(420, "0644") == "0644"
    assert wording.shown(None) == "empty"
    assert len(wording.shown("x" * 10_000)) < 80
    assert wording.name("Before Install") == "Before Install"
    assert wording.name("\x1b") == r"'\x1b'"
    assert wording.name("") == "''"
    assert wording.listed(["a", "b", "c"]) == "a, b or c"
    assert (
        wording.closest("ValidatService", ["ValidateService", "AfterInstall"]) == "ValidateService"
    )
    assert wording.closest("validate_service", ["ValidateService"]) == "ValidateService"
    assert wording.closest("x" * 10_000, ["x"]) == ""
