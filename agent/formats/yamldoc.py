"""YAML text to plain values that know their place in the file. The only importer of yaml."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import yaml
from yaml.constructor import SafeConstructor

from agent.formats import wording, yaml_errors
from agent.model.appspec import Problem, Severity

Path = tuple[str | int, ...]
Place = tuple[int, int]

MAX_BYTES = 2**20
MAX_DEPTH = 40
MAX_NODES = 20_000  # aliases expanded; 400 bytes of places each, so 8 MB at most

# The C parser is ten times as fast; PyYAML may have been built without it.
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_NUMBER = 40

_CONSTRUCTOR = SafeConstructor()
_CONSTRUCT: dict[str, Callable[[yaml.ScalarNode], object]] = {
    "null": _CONSTRUCTOR.construct_yaml_null,
    "bool": _CONSTRUCTOR.construct_yaml_bool,
    "int": _CONSTRUCTOR.construct_yaml_int,
    "float": _CONSTRUCTOR.construct_yaml_float,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A file's value (None, bool, int, float, str, list, dict with str keys) and its places.

    Keys are the text that was written (`off`, `0644`), whatever YAML 1.1 makes of them.
    is_readable: False where the text is no YAML; problems says why.
    """

    file: str
    value: object
    problems: tuple[Problem, ...]
    is_readable: bool = True
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Line and column, from 1, of a value or of its key; of what holds it if it is absent."""
        if at_key and path in self.keys:
            return self.keys[path]
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return self.values[path[:length]]
        return (1, 1)

    def written(self, path: Path) -> str:
        """The text of an unquoted scalar that YAML made a number, yes/no or null of; else ""."""
        return self.texts.get(path, "")


class _Unreadable(Exception):
    """The text cannot be read on; line and column count from 1."""

    def __init__(self, line: int, column: int, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.sentence = yaml_errors.Sentence(line, column, message, suggestion)


def parse_yaml(text: bytes, file: str, *, is_strict: bool = False) -> Document:
    """Read one YAML document; never raises, whatever the bytes are.

    file: its name in the problems. A key that is there twice (the last one wins) and a second
    document (not read) are warnings, errors where is_strict is set. Refused are other encodings
    than UTF-8, more than 1 MiB, 40 levels or 20,000 values.
    """
    reader = _Reader(file, Severity.ERROR if is_strict else Severity.WARNING)
    lines: list[str] = []
    try:
        characters = _decode(text)
        if characters.startswith("\ufeff"):
            characters = characters[1:]
            reader.note_byte_order_mark()
        lines = _LINE_BREAK.split(characters)
        return reader.read(characters)
    except _Unreadable as error:
        sentence = error.sentence
    except yaml.YAMLError as error:
        sentence = yaml_errors.explain(_complaint(error), lines)
    return reader.unreadable(_inside(sentence, lines))


def _decode(text: bytes) -> str:
    """The text, once it is sure that the parser can take every character of it."""
    if len(text) > MAX_BYTES:
        raise _Unreadable(1, 1, f"the file has more than {MAX_BYTES // 1024} KiB")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in text[:64]:
        message = "the file is no UTF-8 text (it looks like UTF-16, or like no text at all)"
        raise _Unreadable(1, 1, message, "save it as UTF-8")
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = _LINE_BREAK.split(text[: error.start].decode("utf-8").removeprefix("\ufeff"))
        message = f"byte 0x{text[error.start]:02x} is not UTF-8"
        raise _Unreadable(
            len(before), len(before[-1]) + 1, message, "save the file as UTF-8"
        ) from error
    odd = _UNPRINTABLE.search(characters)
    if odd:
        before = _LINE_BREAK.split(characters[: odd.start()].removeprefix("\ufeff"))
        message = f"control character U+{ord(odd[0]):04X}, which YAML does not allow"
        raise _Unreadable(len(before), len(before[-1]) + 1, message, "take it out")
    return characters


def _complaint(error: yaml.YAMLError) -> yaml_errors.Complaint:
    problem = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None) or problem
    words = (getattr(error, "context", None), getattr(error, "problem", None) or str(error))
    text = " ".join(" ".join(word.split()) for word in words if word)
    return yaml_errors.Complaint(
        text,
        problem.line if problem else 0,
        problem.column if problem else 0,
        context.line if context else 0,
        context.column if context else 0,
    )


def _inside(sentence: yaml_errors.Sentence, lines: list[str]) -> yaml_errors.Sentence:
    """Parsers notice some faults behind the last line; people look at the last one with text."""
    if not lines or (sentence.line <= len(lines) and lines[sentence.line - 1 :] != [""]):
        return sentence
    line = next((n for n in range(len(lines), 1, -1) if lines[n - 1].strip()), 1)
    return replace(sentence, line=line, column=len(lines[line - 1]) + 1)


class _Reader:
    """Builds a Document's values and places from YAML's nodes."""

    def __init__(self, file: str, ignored: Severity) -> None:
        self._file = file
        self._ignored = ignored  # of what is there and not read
        self._problems: dict[Problem, None] = {}
        self._nodes = 0
        self._values: dict[Path, Place] = {}
        self._keys: dict[Path, Place] = {}
        self._texts: dict[Path, str] = {}

    def note_byte_order_mark(self) -> None:
        """Warn of a BOM: it is harmless here, but not everywhere."""
        message = "the file begins with a byte order mark"
        self._note(Severity.WARNING, (1, 1), message, "save it without BOM")

    def _note(self, severity: Severity, place: Place, message: str, suggestion: str) -> None:
        self._problems[Problem(severity, self._file, *place, message, suggestion)] = None

    def unreadable(self, sentence: yaml_errors.Sentence) -> Document:
        """The document of a text that could not be read."""
        place = (sentence.line, sentence.column)
        self._note(Severity.ERROR, place, sentence.message, sentence.suggestion)
        return Document(self._file, None, tuple(self._problems), is_readable=False)

    def read(self, text: str) -> Document:
        """The document of a text. Raises YAMLError and _Unreadable."""
        self._scan(text)
        loader = _LOADER(text)
        try:
            node = loader.get_node() if loader.check_node() else None
        finally:
            loader.dispose()
        value = self._build(node, (), 0) if node else None
        return Document(
            self._file,
            value,
            tuple(self._problems),
            values=self._values,
            keys=self._keys,
            texts=self._texts,
        )

    def _scan(self, text: str) -> None:
        """Look at the depth and number of values before PyYAML recurses into them."""
        depth = nodes = documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "a second document begins here and is not read"
                    self._note(self._ignored, _place(event), message, "")
                    return
            elif isinstance(event, yaml.NodeEvent):
                nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            _limit(depth, nodes, event)

    def _build(self, node: yaml.Node, path: Path, depth: int) -> object:
        self._nodes += 1
        _limit(depth, self._nodes, node)
        self._values[path] = _place(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._build(each, (*path, index), depth + 1)
                for index, each in enumerate(node.value)
            ]
        assert isinstance(node, yaml.ScalarNode)
        value = _scalar(node)
        if not isinstance(value, str) and not node.style:
            self._texts[path] = node.value
            if not node.value and path in self._keys:
                self._values[path] = self._keys[path]  # nothing is written: point at its key
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                self._merge(value_node, path, depth, result)
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                message = "a key must be a single word, not a list or a mapping"
                hint = "if {{ }} is a template, fill it in first; if it is text, quote it"
                self._note(Severity.ERROR, _place(key_node), message, hint)
                continue
            key = key_node.value
            place = _place(key_node)
            if key in lines:
                both = f"is there twice, on lines {lines[key]} and {place[0]}; the last one wins"
                self._note(self._ignored, place, f"{wording.name(key)}: {both}", "keep one")
            lines[key] = place[0]
            self._keys[(*path, key)] = place
            result[key] = self._build(value_node, (*path, key), depth + 1)
        return result

    def _merge(self, node: yaml.Node, path: Path, depth: int, result: dict[str, object]) -> None:
        """`<<: *other`: the other's keys, which the mapping's own keys override."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in reversed(sources):
            self._nodes += 1
            _limit(depth, self._nodes, source)
            if isinstance(source, yaml.MappingNode):
                result.update(self._mapping(source, path, depth + 1))
            else:
                self._note(Severity.ERROR, _place(source), "<<: must name a mapping", "")


def _scalar(node: yaml.ScalarNode) -> object:
    """The value of a scalar; what YAML has no plain value for stays text."""
    text: str = node.value
    construct = _CONSTRUCT.get(node.tag.removeprefix(_PREFIX))
    if construct is None or len(text) > _LONGEST_NUMBER:
        return text
    try:
        value = construct(node)
    except (ValueError, LookupError, OverflowError):
        return text  # `!!int soon`
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _limit(depth: int, nodes: int, at: yaml.Node | yaml.Event) -> None:
    if depth > MAX_DEPTH:
        message = f"this is nested deeper than {MAX_DEPTH} levels, or refers to itself"
        raise _Unreadable(*_place(at), message)
    if nodes > MAX_NODES:
        raise _Unreadable(*_place(at), f"the file has more than {MAX_NODES} values")


def _place(at: yaml.Node | yaml.Event) -> Place:
    assert at.start_mark is not None  # only nodes that a program made have none
    return (at.start_mark.line + 1, at.start_mark.column + 1)
