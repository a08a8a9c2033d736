"""YAML text to values and places, and what becomes of text that is no YAML."""

from __future__ import annotations

import pytest
import yaml

from agent.formats import yamldoc
from agent.model.appspec import Severity

LOADERS = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__)
def _each_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML may have been built without its C parser."""
    monkeypatch.setattr(yamldoc, "_LOADER", request.param)


def parse(text: str | bytes) -> yamldoc.Document:
    encoded = text.encode() if isinstance(text, str) else text
    return yamldoc.parse_yaml(encoded, "f.yml")


def only_problem(text: str | bytes) -> str:
    document = parse(text)
    assert not document.is_readable
    (problem,) = document.problems
    assert problem.severity is Severity.ERROR
    return str(problem)


@pytest.mark.usefixtures("_each_loader")
def test_values_and_their_places() -> None:
    document = parse("---\r\na:\r\n  - b: 0644\r\n    'c d': \"0644\"\r\n  - [x, 1.5, yes, ~]\r\n")
    assert document.value == {"a": [{"b": 420, "c d": "0644"}, ["x", 1.5, True, None]]}
    assert document.problems == ()
    assert document.place(("a", 0, "b")) == (3, 8)
    assert document.place(("a", 0, "b"), at_key=True) == (3, 5)
    assert document.place(("a", 1, 2)) == (5, 14)
    assert document.place(("a", 0, "absent", 7)) == document.place(("a", 0)) == (3, 5)
    assert document.written(("a", 0, "b")) == "0644"
    assert document.written(("a", 0, "c d")) == ""
    assert document.written(("a", 1, 2)) == "yes"


@pytest.mark.usefixtures("_each_loader")
def test_what_yaml_has_no_plain_value_for_stays_text() -> None:
    text = "{d: 2024-13-45, t: !Sub 5, i: !!int soon, n: .nan, f: .inf, b: !!binary x, k: !!int ''}"
    assert parse(text).value == {
        "d": "2024-13-45",
        "t": "5",
        "i": "soon",
        "n": ".nan",
        "f": ".inf",
        "b": "x",
        "k": "",
    }
    assert parse(f"n: {'9' * 5000}").value == {"n": "9" * 5000}
    assert parse("{!Map {a: 1}: 2, ? !X b : 3}").value == {"b": 3}


@pytest.mark.usefixtures("_each_loader")
def test_keys_are_the_text_that_was_written() -> None:
    assert parse("off: 1\n0644: 2\n~: 3\n1.0: 4\n").value == {"off": 1, "0644": 2, "~": 3, "1.0": 4}


@pytest.mark.usefixtures("_each_loader")
def test_a_value_that_is_not_written_is_at_its_key() -> None:
    document = parse("a: 1\nhooks:\n\n\nb: 2\n")
    assert document.place(("hooks",)) == (2, 1)


@pytest.mark.usefixtures("_each_loader")
def test_aliases_and_merge_keys() -> None:
    document = parse(
        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nd: {y: 4, <<: [{y: 5}, {z: 6}]}\n"
    )
    assert document.value == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
        "d": {"y": 4, "z": 6},
    }
    assert document.problems == ()
    assert document.place(("b", "x")) == (1, 11)


@pytest.mark.usefixtures("_each_loader")
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "a: &a {b: {<<: *a}}\n",
        "a: &a {<<: *a}\n",
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 35)),
        "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 35)),
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "[" + "1," * 30_000 + "]",
    ],
)
def test_bombs_are_refused(text: str) -> None:
    assert only_problem(text)


def test_large_files_are_refused() -> None:
    assert "1024 KiB" in only_problem("#" * (yamldoc.MAX_BYTES + 1))
    assert parse("#" * yamldoc.MAX_BYTES).is_readable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: b\n".encode("utf-16"),
            "f.yml:1:1: error: the file is no UTF-8 text (it looks like UTF-16, or like no text",
        ),
        (b"\x7fELF\0\0", "f.yml:1:1: error: the file is no UTF-8 text"),
        ("a: 1\nb: caf\xe9\n".encode("latin-1"), "f.yml:2:7: error: byte 0xe9 is not UTF-8"),
        ("\ufeffä: \x1b\n".encode(), "f.yml:1:4: error: control character U+001B"),
    ],
)
def test_other_encodings_get_a_sentence(text: bytes, message: str) -> None:
    assert message in only_problem(text)


def test_byte_order_mark_is_a_warning() -> None:
    document = parse(b"\xef\xbb\xbfa: 1\n")
    assert document.value == {"a": 1}
    assert [str(each) for each in document.problems] == [
        "f.yml:1:1: warning: the file begins with a byte order mark (save it without BOM)"
    ]
    assert document.place(("a",)) == (1, 4)


@pytest.mark.usefixtures("_each_loader")
def test_duplicates_and_a_second_document() -> None:
    document = parse("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n---\nd: 4\n")
    assert document.value == {"a": 3, "b": {"c": 2}}
    assert [str(each) for each in document.problems] == [
        "f.yml:6:1: warning: a second document begins here and is not read",
        "f.yml:4:3: warning: c: is there twice, on lines 3 and 4; the last one wins (keep one)",
        "f.yml:5:1: warning: a: is there twice, on lines 1 and 5; the last one wins (keep one)",
    ]
    strict = yamldoc.parse_yaml(b"a: 1\na: 2\n---\n", "f.yml", is_strict=True)
    assert [each.severity for each in strict.problems] == [Severity.ERROR] * 2


@pytest.mark.usefixtures("_each_loader")
@pytest.mark.parametrize("text", ["", "\n\n", "# words\n", "---\n", "~"])
def test_nothing_is_no_error(text: str) -> None:
    document = parse(text)
    assert document.value is None
    assert document.problems == ()


@pytest.mark.usefixtures("_each_loader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1\n", "2:1: error: the line is indented with a tab; YAML takes blanks only"),
        ('a: "b\nc: 1\n', "1:4: error: this quote is never closed"),
        ("a: **\n", 'error: a value that begins with * is an alias in YAML (quote it: "**")'),
        ("a: @b\n", "a value cannot begin with '@' in YAML (quote it: \"@b\")"),
        ("- b: 1\n  c:2\n", "2:3: error: 'c:2' has no blank after the colon (write c: 2)"),
        ("- b: 1\n c: 2\n", "c begins in column 2 and lines up with nothing above it"),
        ("- b: 1\n   c: 2\n", "c begins in column 4 and lines up with nothing above it"),
        ("a: b: c\n", "a second ': ' in one line (quote the value: a: \"b: c\")"),
        ("- a\nb: 1\n", "b is a key, but list entries stand above it in this column"),
        ("a: 1\n- b\n", "'- b' is a list entry, but keys stand above it in this column"),
        ("a: [1, 2\nb: 1\n", "1:4: error: this [ is not closed properly: trouble at line 2"),
        ("a: 1\nb\n", "2:1: error: 'b' is no key with a value (write it as key: value)"),
        ("b\na: 1\n", "1:1: error: 'b' is no key with a value (write it as key: value)"),
        ("a: 'it's'\n", "1:8: error: there is text after the closing quote"),
        ("a: - b\n", "1:4: error: a list cannot begin on the line of its key"),
        ("a: 1\n...\nb\n", "3:1: error: there is text after the end of the YAML document"),
        ("a: ]\n", "1:4: error: ']' stands where a value belongs"),
        ("a:\u00a0b\nc: 1\n", "1:3: error: there is a U+00A0 that only looks like a blank"),
    ],
)
def test_both_parsers_errors_get_the_same_sentence(text: str, message: str) -> None:
    assert message in only_problem(text)
