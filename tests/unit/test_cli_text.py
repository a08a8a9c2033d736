"""How agentctl writes times and sizes, and that foreign text cannot command the terminal."""

from __future__ import annotations

import argparse
import time

import pytest

from agent.cli import arguments, text

NOW = time.mktime((2026, 3, 1, 14, 2, 10, 0, 0, -1))


@pytest.mark.parametrize("given", ["", "h", "-1h", "0s", "two hours"])
def test_what_is_no_duration(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.parse_duration(given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain, with ümlaut and 漢字", "plain, with ümlaut and 漢字"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;aGk=\x1b\\clipboard", "clipboard"),
        ("\x1bcreset", "reset"),
        ("\x1b(0charset", "charset"),
        ("\x9b31mcsi", "31mcsi"),
        ("back\x08\x08\rover", "backover"),
        ("unfinished \x1b[3", "unfinished "),
        ("unfinished \x1b]8;;http://x", "unfinished "),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_clean(given: str, shown: str) -> None:
    assert text.clean(given) == shown


def test_clean_all_reaches_every_string() -> None:
    dirty = {"a": ["\x1b[1mx", {"b": "\x07y"}], "n": 1, "none": None, "true": True}
    assert text.clean_all(dirty) == {"a": ["x", {"b": "y"}], "n": 1, "none": None, "true": True}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.312, "0.31 s"),
        (42.4, "42 s"),
        (180, "3 min"),
        (3 * 3600, "3 h"),
        (5 * 86400, "5 days"),
        (-1, "0.00 s"),
    ],
)
def test_seconds(seconds: float, shown: str) -> None:
    assert text.seconds(seconds) == shown


def test_ago() -> None:
    assert text.ago(NOW - 200, NOW) == "3 min ago"
    assert text.ago(NOW - 1.2, NOW) == "1 s ago"
    assert text.ago(NOW, NOW) == "just now"
    assert text.ago(NOW + 5, NOW) == "just now"  # a clock that was set back


def test_clock_names_the_day_where_it_is_not_today() -> None:
    assert text.clock(NOW, NOW) == "14:02:10"
    assert text.clock(NOW - 86400, NOW) == "2026-02-28 14:02"


@pytest.mark.parametrize(
    ("octets", "shown"),
    [(0, "0 B"), (999, "999 B"), (12_300_000, "12.3 MB"), (5e12, "5.0 TB")],
)
def test_size(octets: float, shown: str) -> None:
    assert text.size(octets) == shown


def test_colours_only_where_welcome() -> None:
    assert text.Style(colour=True)("red", "x") == "\x1b[31mx\x1b[0m"
    assert text.PLAIN("red", "x") == "x"
    assert not text.has_terminal(None)


def test_columns() -> None:
    assert text.columns([["a", "bbb", "c"], ["aaaa", "b", ""]]) == ["a     bbb  c", "aaaa  b"]
