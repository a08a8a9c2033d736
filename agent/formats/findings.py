"""Collects what is wrong with a document, each finding at its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from agent.formats import schema, wording, yamldoc
from agent.formats.yamldoc import Path
from agent.model.appspec import Problem, Severity

_MOST_SHOWN = 100


class Findings:
    """The problems of one document; a path that has an error is not complained about twice."""

    def __init__(self, document: yamldoc.Document) -> None:
        self.document = document
        self._problems: dict[Problem, None] = dict.fromkeys(document.problems)
        self._refused: set[Path] = set()

    def error(
        self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False
    ) -> None:
        """The file is refused: what is at `path` (or its key) cannot work."""
        self._refused.add(path)
        self._add(Severity.ERROR, path, message, suggestion, at_key=at_key)

    def warn(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> None:
        """The file is accepted, but what is at `path` (or its key) does not do what it seems to."""
        self._add(Severity.WARNING, path, message, suggestion, at_key=at_key)

    def hush(self, path: Path) -> None:
        """Let the schema say nothing about `path`: the fault is explained elsewhere."""
        self._refused.add(path)

    def check_schema(
        self, schema_name: str, severity: Callable[[schema.Finding], Severity]
    ) -> None:
        """Add what the schema forbids, where nothing more exact has been said yet."""
        document = self.document
        for found in schema.validate(document.value, schema_name, written=document.written):
            if found.path in self._refused:
                continue
            self._add(
                severity(found), found.path, found.message, found.suggestion, at_key=found.at_key
            )

    def _add(
        self, severity: Severity, path: Path, message: str, suggestion: str, *, at_key: bool
    ) -> None:
        place = self.document.place(path, at_key=at_key)
        text = f"{label(path)}: {message}" if path else message
        self._problems[Problem(severity, self.document.file, *place, text, suggestion)] = None

    def sorted(self) -> tuple[Problem, ...]:
        """The problems in the order of the file: at most 100 errors and as many warnings."""
        shown: list[Problem] = []
        for severity in Severity:
            each = sorted(filter(lambda one: one.severity is severity, self._problems), key=_place)
            shown += each[:_MOST_SHOWN]
            if len(each) > _MOST_SHOWN:
                message = f"and {len(each) - _MOST_SHOWN} more like this, from here on"
                shown.append(replace(each[_MOST_SHOWN], message=message, suggestion=""))
        return tuple(sorted(shown, key=_place))


def _place(problem: Problem) -> tuple[int, int]:
    return (problem.line, problem.column)


def label(path: Path) -> str:
    """How a message names the value at a path: `timeout`, or `files, entry 2`."""
    entries = [each for each in path if isinstance(each, int)]
    last = path[-1]
    if isinstance(last, str):
        return wording.name(last)
    key = next((each for each in reversed(path) if isinstance(each, str)), "")
    return f"{wording.name(key)}, entry {entries[-1] + 1}" if key else f"entry {last + 1}"


def has_error(problems: tuple[Problem, ...]) -> bool:
    """Whether any of them refuses the file."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def mapping(value: object) -> dict[str, object]:
    """The value if it is a mapping, else an empty one: the schema has complained of it."""
    return value if isinstance(value, dict) else {}


def entries(value: object) -> Iterator[tuple[int, dict[str, object]]]:
    """The entries of a list that are mappings, with their indexes."""
    if isinstance(value, list):
        for index, entry in enumerate(value):
            if isinstance(entry, dict):
                yield index, entry


def text(value: object) -> str:
    """The value if it is text, without blanks around it, else ""."""
    return value.strip() if isinstance(value, str) else ""


def texts(value: object) -> tuple[str, ...]:
    """The entries of a list that are text."""
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def refuse_control(path: Path, written: str, found: Findings) -> bool:
    """Add an error if text that names something has characters that no name has."""
    odd = next((sign for sign in written if ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0), "")
    odd = odd or next((sign for sign in written if 0xD800 <= ord(sign) < 0xE000), "")
    if odd:
        found.error(path, f"has the control character U+{ord(odd):04X}", "take it out")
    return bool(odd)
