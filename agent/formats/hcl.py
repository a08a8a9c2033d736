"""HCL as Consul's configuration has it: https://github.com/hashicorp/hcl/tree/v1.0.0 (version 1).

For service definitions, which name services by plain text. What is beyond that, such as "${",
which Consul does not expand, is refused and not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r"""
    (?P<blank>(?:\s|\#[^\n]*|//[^\n]*|/\*.*?\*/)+)
  | (?P<heredoc><<(?P<indented>-?)(?P<mark>[A-Za-z0-9_]+)\r?\n
        (?P<lines>(?:.*?\n)??)[ \t]*(?P=mark)(?=\r?\n|\Z))
  | (?P<text>"(?:[^"\\\n]|\\.)*")
  | (?P<number>-?(?:0x[0-9A-Fa-f]+|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.]))
  | (?P<word>[^\W\d][\w.-]*)
  | (?P<sign>[{}\[\]=,])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_DEEPEST = 50

_Token = tuple[str, str]
_END: _Token = ("end", "")


def parse_hcl(text: str) -> dict[str, list[Any]]:
    """An object: each of its keys with all the values that it is given, as it may be repeated.

    Objects in it are such as well; a list is a list. Raises ValueError for what is no such HCL.
    """
    return _Reader(_tokens(text)).read_object(_END, 0)


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, place) + 1} is not understood")
        place = match.end()
        if match["heredoc"] is not None:
            yield "text", match["lines"]
        elif match["text"] is not None:
            yield "text", _unescaped(match["text"][1:-1])
        elif match["blank"] is None:
            yield str(match.lastgroup), match[0]
    yield _END


def _unescaped(text: str) -> str:
    if "${" in text:
        raise ValueError("${ in a text is not understood")

    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        if code is None and match[3] not in _ESCAPED:
            raise ValueError(f"\\{match[3]} in a text is not understood")
        return chr(int(code, 16)) if code else _ESCAPED[match[3]]

    return _ESCAPE.sub(one, text)


class _Reader:
    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._next = next(tokens)

    def read_object(self, end: _Token, depth: int) -> dict[str, list[Any]]:
        if depth > _DEEPEST:
            raise ValueError("objects lie too deep in each other")
        found: dict[str, list[Any]] = {}
        while self._next != end:
            names = []
            while self._next[0] in ("word", "text"):
                names.append(self._take())
            if not names:
                raise ValueError(f"{self._next[1] or 'the end'} where a key belongs")
            if self._next == ("sign", "="):
                self._take()
                value = self._read_value(depth)
            elif self._next == ("sign", "{"):
                value = self._read_value(depth)
            else:
                raise ValueError(f"{names[-1]} has no value")
            for name in reversed(names[1:]):
                value = {name: [value]}
            found.setdefault(names[0], []).append(value)
            if self._next == ("sign", ","):
                self._take()
        if end is not _END:
            self._take()
        return found

    def _read_value(self, depth: int) -> Any:
        kind, text = self._next
        match kind, text:
            case "sign", "{":
                self._take()
                return self.read_object(("sign", "}"), depth + 1)
            case "sign", "[":
                self._take()
                return self._read_list(depth + 1)
            case "word", "true" | "false":
                return self._take() == "true"
            case "text", _:
                return self._take()
            case "number", _:
                return float(int(self._take(), 16)) if "x" in text else float(self._take())
            case _:
                raise ValueError(f"{text or 'the end'} where a value belongs")

    def _read_list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise ValueError("lists lie too deep in each other")
        found = []
        while self._next != ("sign", "]"):
            found.append(self._read_value(depth))
            if self._next == ("sign", ","):
                self._take()
            elif self._next != ("sign", "]"):
                raise ValueError(f"{self._next[1] or 'the end'} in a list")
        self._take()
        return found

    def _take(self) -> str:
        taken = self._next[1]
        self._next = next(self._tokens, _END)
        return taken
