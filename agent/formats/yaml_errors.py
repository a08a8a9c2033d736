"""What a YAML parser's complaint means, in a sentence for the person who wrote the file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.formats import wording

# The wording of libyaml and of PyYAML's own parser differ; each pattern knows both.
_UNCLOSED_QUOTE = re.compile(r"quoted scalar.*unexpected end of stream|quoted scalar.*document sep")
_ALIAS = re.compile(r"scanning an alias|undefined alias")
_ANCHOR = re.compile(r"scanning an anchor")
_NO_TOKEN = re.compile(r"cannot start any token|scanning a directive")
_ESCAPE = re.compile(r"unknown escape|expected escape sequence|hexdecimal|hexadecimal")
_SECOND_COLON = re.compile(r"mapping values are not allowed")
_NO_COLON = re.compile(r"could not find expected ':'")
_DASH_INLINE = re.compile(r"sequence entries are not allowed")
_FLOW = re.compile(r"flow (sequence|mapping)")
_BLOCK = re.compile(r"block (collection|mapping)")
_TAG = re.compile(r"(scanning|parsing) a tag")

_GLUED = re.compile(r"^\s*(?:- +)*([A-Za-z_][\w.-]*):(?![/\\])(\S.*)$")
_KEY = re.compile(r"""^(\s*(?:- +)*)("[^"]*"|'[^']*'|[^\s:#'"\[{][^:#]*):(?=\s|$)""")
_LONGEST = 500  # of a line that is looked at: the patterns above are slow on a very long one
_ODD_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the parser said. Lines and columns count from 0, as parsers do; text is one line."""

    text: str  # context and problem
    line: int
    column: int
    context_line: int
    context_column: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """The same for people. Lines and columns count from 1."""

    line: int
    column: int
    message: str
    suggestion: str = ""


def explain(complaint: Complaint, lines: list[str]) -> Sentence:
    """The sentence for a complaint about a file of these lines."""
    for meaning in (_odd_characters, _scalar, _colon, _structure):
        sentence = meaning(complaint, lines)
        if sentence:
            return sentence
    return _at(complaint, f"is not valid YAML: {complaint.text}")


def _odd_characters(complaint: Complaint, lines: list[str]) -> Sentence | None:
    """Characters that look like a blank in an editor."""
    tabbed = [n for n, line in enumerate(lines, 1) if re.match(r"[ -]*\t\s*\S", line)]
    if complaint.line + 1 in tabbed:
        also = [str(n) for n in tabbed if n > complaint.line + 1][:5]
        more = f" (also line {wording.listed(also, 'and')})" if also else ""
        column = _line(lines, complaint.line).index("\t") + 1
        message = f"the line is indented with a tab{more}; YAML takes blanks only"
        return Sentence(complaint.line + 1, column, message, "replace each tab by blanks")
    above = _line_above(lines, complaint.line)
    for number in (complaint.line, complaint.context_line, above):
        odd = _ODD_BLANKS.search(_line(lines, number))
        if odd:
            message = f"there is a U+{ord(odd[0]):04X} that only looks like a blank"
            return Sentence(number + 1, odd.start() + 1, message, "type a plain blank instead")
    return None


def _scalar(complaint: Complaint, lines: list[str]) -> Sentence | None:
    """Quotes, and characters that mean something to YAML at the beginning of a value."""
    if _UNCLOSED_QUOTE.search(complaint.text):
        return _at_context(complaint, "this quote is never closed", "add the closing quote")
    if _ALIAS.search(complaint.text):
        place = complaint if "undefined" in complaint.text else _context_of(complaint)
        message = "a value that begins with * is an alias in YAML"
        return _at(place, message, _quote(lines, place))
    if _ANCHOR.search(complaint.text):
        place = _context_of(complaint)
        return _at(place, "a value that begins with & is an anchor in YAML", _quote(lines, place))
    if _NO_TOKEN.search(complaint.text):
        place = _context_of(complaint) if "directive" in complaint.text else complaint
        character = _line(lines, place.line)[place.column : place.column + 1]
        message = f"a value cannot begin with {character!r} in YAML"
        return _at(place, message, _quote(lines, place))
    if _ESCAPE.search(complaint.text):
        message = "a backslash in double quotes begins an escape, and this is none"
        return _at(complaint, message, "use single quotes")
    if _TAG.search(complaint.text):
        place = _context_of(complaint)
        return _at(place, "a value that begins with ! is a tag in YAML", _quote(lines, place))
    return None


def _colon(complaint: Complaint, lines: list[str]) -> Sentence | None:
    """A colon too many, one that is missing, or one without its blank."""
    if _NO_COLON.search(complaint.text):
        number = complaint.context_line
        return _glued(lines, number) or _no_key(lines, number)
    if not _SECOND_COLON.search(complaint.text):
        return None
    number = complaint.line
    line = _line(lines, number)
    key = _KEY.match(line)
    if key and complaint.column > key.end() - 1:
        rest = line[key.end() :].strip()
        suggestion = f"quote the value: {key[2]}: {_quoted(rest)}"
        return _at(complaint, "a second ': ' in one line", suggestion)
    above = _line_above(lines, number)
    return _glued(lines, above) or _no_key(lines, above) or _misplaced(lines, number)


def _structure(complaint: Complaint, lines: list[str]) -> Sentence | None:
    """Indentation, dashes and brackets."""
    if _DASH_INLINE.search(complaint.text):
        message = "a list cannot begin on the line of its key"
        return _at(complaint, message, "put each dash on a line of its own below the key")
    if _FLOW.search(complaint.text):
        place = _context_of(complaint)
        opener = _line(lines, place.line)[place.column : place.column + 1]
        closer = {"[": "]", "{": "}"}.get(opener, "bracket")
        ended = f"line {min(complaint.line + 1, max(len(lines), 1))}"
        message = f"this {opener or 'bracket'} is not closed properly: trouble at {ended}"
        return _at(place, message, f"add the missing comma or {closer}")
    if _BLOCK.search(complaint.text):
        before = _line(lines, complaint.line)[: complaint.column]
        if before.strip(" -"):
            return _at(complaint, "there is text after the closing quote", "quote the whole value")
        return _misplaced(lines, complaint.line)
    if "<document start>" in complaint.text:
        return _at(complaint, "there is text after the end of the YAML document", "")
    if "node content" in complaint.text:
        character = _line(lines, complaint.line)[complaint.column : complaint.column + 1]
        message = f"{character!r} stands where a value belongs"
        return _at(complaint, message, "quote it if it is meant as text")
    return None


def _glued(lines: list[str], number: int) -> Sentence | None:
    """key:value without the blank, which YAML reads as one word."""
    line = _line(lines, number)
    match = _GLUED.match(line)
    if not match or _KEY.match(line):
        return None
    key, value = match[1], match[2].strip()
    message = f"{wording.shown(f'{key}:{value}')} has no blank after the colon"
    return Sentence(
        number + 1, match.start(1) + 1, message, f"write {key}: {wording.shortened(value)}"
    )


def _no_key(lines: list[str], number: int) -> Sentence | None:
    """A line without the colon that makes it a key with a value."""
    line = _line(lines, number)
    if _KEY.match(line) or not line.strip(" -"):
        return None
    column = len(line) - len(line.lstrip(" -")) + 1
    message = f"{wording.shown(line.strip(' -'))} is no key with a value"
    return Sentence(number + 1, column, message, "write it as key: value")


def _misplaced(lines: list[str], number: int) -> Sentence:
    """A line whose beginning does not fit what stands above it."""
    line = _line(lines, number)
    column = len(line) - len(line.lstrip(" "))
    key = _KEY.match(line)
    is_dash = line.lstrip(" ").startswith("-")
    what = wording.shown(line.strip()) if is_dash or not key else wording.name(key[2])
    dashes, keys = _open_columns(lines, number)
    fits, others = (dashes, keys) if is_dash else (keys, dashes)
    place = (number + 1, column + 1)
    if column in others and column not in fits:
        found, expected = ("a list entry", "keys") if is_dash else ("a key", "list entries")
        return Sentence(*place, f"{what} is {found}, but {expected} stand above it in this column")
    message = f"{what} begins in column {column + 1} and lines up with nothing above it"
    nearest = min((abs(fit - column) for fit in fits), default=None)
    near = [str(fit + 1) for fit in fits if abs(fit - column) == nearest]
    suggestion = f"begin it in column {wording.listed(near)}" if near else ""
    return Sentence(*place, message, suggestion)


def _open_columns(lines: list[str], number: int) -> tuple[list[int], list[int]]:
    """The columns, from 0, of the dashes and of the keys of the blocks open above a line."""
    dashes: list[int] = []
    keys: list[int] = []
    for line in lines[:number]:
        text = line.lstrip(" ")
        if not text or text.startswith("#"):
            continue
        indent = len(line) - len(text)
        dashes = [column for column in dashes if column < indent]
        keys = [column for column in keys if column < indent]
        inner = re.match(r"(?:- +)+", text)
        if inner or text == "-":
            dashes.append(indent)
        if not inner:
            keys.append(indent)
        elif inner.end() < len(text):
            keys.append(indent + inner.end())
    return dashes, keys


def _quote(lines: list[str], place: Complaint) -> str:
    line = _line(lines, place.line)
    rest = line[place.column :].split(" #")[0]
    if re.search(r"[\[{]", line[: place.column]):
        rest = re.split(r"[],}]", rest)[0]  # inside brackets it ends there
    return f"quote it: {_quoted(rest.strip())}"


def _quoted(text: str) -> str:
    text = wording.shortened(text)
    return f"'{text}'" if '"' in text or "\\" in text else f'"{text}"'


def _line(lines: list[str], number: int) -> str:
    return lines[number][:_LONGEST] if 0 <= number < len(lines) else ""


def _line_above(lines: list[str], number: int) -> int:
    """The number of the nearest line above that says something."""
    for above in range(min(number, len(lines)) - 1, -1, -1):
        text = lines[above].strip()
        if text and not text.startswith("#"):
            return above
    return -1


def _context_of(complaint: Complaint) -> Complaint:
    """The complaint at the place where the broken thing begins, not where it was noticed."""
    return Complaint(
        complaint.text,
        complaint.context_line,
        complaint.context_column,
        complaint.context_line,
        complaint.context_column,
    )


def _at(complaint: Complaint, message: str, suggestion: str = "") -> Sentence:
    return Sentence(complaint.line + 1, complaint.column + 1, message, suggestion)


def _at_context(complaint: Complaint, message: str, suggestion: str) -> Sentence:
    return _at(_context_of(complaint), message, suggestion)
