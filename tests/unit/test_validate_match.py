"""Which reported version is the revision's."""

from __future__ import annotations

import pytest

from agent.model.appspec import Match, StatusCheck
from agent.model.errors import AgentError, Code
from agent.system import http, status_check
from agent.system.http import JsonAnswer
from agent.system.status_check import Verdict


@pytest.mark.parametrize(
    ("match", "reported", "version", "same"),
    [
        (Match.EXACT, "1.214", "1.214", True),
        (Match.EXACT, "1.214 ", "1.214", False),
        (Match.EXACT, "v1.214", "1.214", False),
        (Match.EXACT, "", "", False),
        (Match.PREFIX, "1.214", "1.214", True),
        (Match.PREFIX, "1.214+build.7", "1.214", True),
        (Match.PREFIX, "1.214-rc1", "1.214", True),
        (Match.PREFIX, "1.214", "1.21", False),
        (Match.PREFIX, "v12", "v1", False),
        (Match.PREFIX, "123", "12", False),
        (Match.PREFIX, "abc12345f", "abc1234", True),  # a commit, shortened
        (Match.PREFIX, "1.214", "1.214.3", False),
        (Match.PREFIX, "1.214", "", False),
        (Match.REGEX, "1.214+7", r"1\.214(\+.*)?", True),
        (Match.REGEX, "1.2145", r"1\.214(\+.*)?", False),
        (Match.REGEX, "1.214", "1.214(", False),
        (Match.REGEX, "", ".*", False),
    ],
)
def test_is_match(match: Match, reported: str, version: str, same: bool) -> None:
    assert status_check.is_match(match, reported, version) is same


def test_everything_that_is_wrong_is_told_at_once() -> None:
    check = StatusCheck("http://x/", healthy=(("/a", "ok"), ("/b/c", "ok")))
    answer = status_check.judge(JsonAnswer(200, {"version": "1", "a": "no", "b": {}}), check, "2")
    assert answer.verdict is Verdict.OTHER_VERSION
    for part in ("'1'", "'2'", "/a", "/b/c"):
        assert part in answer.detail


def test_a_failing_status_tells_its_components_too() -> None:
    check = StatusCheck("http://x/", version="", healthy=(("/a", "ok"),))
    answer = status_check.judge(JsonAnswer(503, {"a": "no"}), check, "2")
    assert answer.verdict is Verdict.UNHEALTHY
    assert "HTTP 503" in answer.detail
    assert "/a is 'no'" in answer.detail


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("/a/b", 1), ("/l/1", "y"), ("/l/2", None), ("/l/-", None), ("/a/b/c", None), ("/~1~0", 7)],
)
def test_resolve(pointer: str, found: object) -> None:
    assert http.resolve({"a": {"b": 1}, "l": ["x", "y"], "/~": 7}, pointer) == found


def test_a_pointer_without_its_slash_is_refused() -> None:
    with pytest.raises(AgentError) as caught:
        http.resolve({}, "version")
    assert caught.value.code is Code.APPSPEC_INVALID
