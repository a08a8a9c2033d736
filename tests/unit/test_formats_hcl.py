"""HCL of Consul's configuration: what is read of it, and what is refused rather than guessed."""

from __future__ import annotations

from typing import Any

import pytest

from agent.formats import hcl


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ('a = "b"', {"a": ["b"]}),
        ('a = 1, b = -2.5\nc = true d = "x"', {"a": [1], "b": [-2.5], "c": [True], "d": ["x"]}),
        ("a { b = 0x10 }\na { b = 1e3 }", {"a": [{"b": [16]}, {"b": [1000]}]}),
        ('a "b" c { d = 1 }', {"a": [{"b": [{"c": [{"d": [1]}]}]}]}),
        ('a = [1, "b", {c = 2},]', {"a": [[1, "b", {"c": [2]}]]}),
        ("# a\n// b\n/* c = 1\n */ d = 1 # e", {"d": [1]}),
        (r'a = "q\"\\\n\u00e9#//{"', {"a": ['q"\\\né#//{']}),
        ("a = <<EOF\nb\n EOFF\nEOF\nc = 1", {"a": ["b\n EOFF\n"], "c": [1]}),
        ("a = <<-EOF\n  b\n  EOF\n", {"a": ["  b\n"]}),
        ("a = <<EOF\nEOF\n", {"a": [""]}),
    ],
)
def test_read(text: str, wanted: dict[str, Any]) -> None:
    assert hcl.parse_hcl(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a =",
        "a = b",
        "= 1",
        "a { b = 1",
        "a = [1 2]",
        "a = [1",
        'a = "b',
        'a = "b\nc"',
        'a = "${b}"',
        r'a = "\q"',
        "a = <<EOF\nb",
        "/* a",
        "a = 1x",
        "}",
        "a = 1 }",
        "a " + "{ a " * 60,
        "a = " + "[" * 60,
        "a: 1",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"understood|belongs|value|list|deep"):
        hcl.parse_hcl(text)
