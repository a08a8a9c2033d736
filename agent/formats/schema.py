"""JSON Schema with messages for people. The only importer of jsonschema, and only for mistakes."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from agent.formats import shape, wording

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Path = tuple[str | int, ...]

_KINDS = {
    "array": "a list",
    "object": "a mapping (keys with values)",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_GLUED = re.compile(r"([A-Za-z_][\w.-]*):([^\s/\\].*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the schema forbids.

    path: from the top to the value, or to the key where at_key is set; message: without its name.
    unknown: whether it is a key that the schema does not know.
    """

    path: Path
    message: str
    suggestion: str = ""
    at_key: bool = False
    unknown: bool = False


def _not_written(_path: Path) -> str:
    return ""


def validate(
    value: object, schema_name: str, *, written: Callable[[Path], str] = _not_written
) -> list[Finding]:
    """What is wrong with a value by the schema "appspec", "agent" or "release".

    written: the text of a value as it stands in its file, if that differs from the value's own.
    """
    if shape.is_allowed(value, schema(schema_name)):
        return []
    found: dict[Finding, None] = {}
    for error in _validator(schema_name).iter_errors(value):
        found.update(dict.fromkeys(_findings(error, written)))
    return list(found)


@functools.cache
def schema(schema_name: str) -> dict[str, Any]:
    """The schema as read from the folder of the model."""
    folder = FilePath(__file__).resolve().parents[1] / "model" / "schema"
    file = folder / f"{schema_name}.schema.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def forget() -> None:
    """Give back what was read, 0.1 MB each: it is read again where it is needed."""
    schema.cache_clear()
    _validator.cache_clear()


@functools.cache
def _validator(schema_name: str) -> Any:
    # imported here: 3 MB, which a daemon that is given nothing wrong does without
    import jsonschema
    from jsonschema.exceptions import ValidationError

    def pattern(_validator: Any, pattern: str, instance: object, _rules: Any) -> Iterator[Any]:
        """A `$` at the end means the end, as in JavaScript; Python's lets a line break follow."""
        strict = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
        if isinstance(instance, str) and not re.search(strict, instance):
            yield ValidationError(f"does not match {pattern}")

    extend: Any = jsonschema.validators.extend  # jsonschema 4.10 has no types
    return extend(jsonschema.Draft7Validator, {"pattern": pattern})(schema(schema_name))


def _findings(error: ValidationError, written: Callable[[Path], str]) -> Iterator[Finding]:
    path: Path = tuple(error.absolute_path)
    rule = str(error.validator)
    instance: Any = error.instance
    expected: Any = error.validator_value
    rules: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    said = str(rules.get("errorMessage", ""))
    found = wording.shown(instance, written(path))
    match rule:
        case "additionalProperties":
            yield from _unknown_keys(path, instance, rules)
        case "required":
            for key in expected:
                if key not in instance:
                    yield Finding(path, f"has no {key}", _hint_required(key, instance))
        case "enum":
            words = [str(word) for word in expected if word is not None]
            choice = said or f"must be {wording.listed(words)}"
            near = wording.did_you_mean(instance, words) if isinstance(instance, str) else ""
            yield Finding(path, f"{choice}, is {found}", near)
        case "type":
            kinds = [expected] if isinstance(expected, str) else expected
            must = said or f"must be {wording.listed([_KINDS[k] for k in kinds if k != 'null'])}"
            yield Finding(path, f"{must}, is {found}", _hint_type(kinds, instance, rules))
        case "pattern" if (
            path and isinstance(instance, str) and "propertyNames" in error.schema_path
        ):
            hint = "" if instance.startswith("/") else f"write /{wording.shortened(instance)}"
            yield Finding((*path, instance), said, hint, at_key=True)
        case "minProperties" | "minLength":
            yield Finding(path, "must not be empty")
        case "minimum" | "exclusiveMinimum" | "maximum":
            than = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
            yield Finding(path, f"{said or f'must be {than[rule]} {expected}'}, is {found}")
        case _:
            yield Finding(path, f"{said or 'is not allowed here'}, is {found}")


def _unknown_keys(path: Path, instance: object, rules: dict[str, Any]) -> Iterator[Finding]:
    known = list(rules.get("properties", {}))
    what = str(rules.get("unknownKey", "unknown key"))
    for key in instance if isinstance(instance, dict) else ():
        if key not in known and not ("patternProperties" in rules and key.startswith("x-")):
            hint = wording.did_you_mean(key, known)
            yield Finding((*path, key), what, hint, at_key=True, unknown=True)


def _hint_required(key: str, instance: dict[str, object]) -> str:
    near = wording.closest(key, (each for each in itertools.islice(instance, 50)))
    return f"is {wording.name(near)} meant?" if near else ""


def _hint_type(kinds: list[str], instance: object, rules: dict[str, Any]) -> str:
    """What was probably meant by a value of the wrong kind."""
    if "array" in kinds and isinstance(instance, str | dict):
        is_list_of_text = "$ref" not in rules.get("items", {})
        if isinstance(instance, str) and is_list_of_text:
            return f"write [{_flow(instance)}]"
        return "begin each entry with a dash"
    if "object" in kinds and isinstance(instance, list):
        return "take the dashes away"
    glued = _GLUED.fullmatch(instance) if isinstance(instance, str) else None
    if "object" in kinds and glued:
        return f"put a blank after the colon: {glued[1]}: {wording.shortened(glued[2])}"
    if "object" in kinds and isinstance(instance, str) and len(rules.get("required", ())) == 1:
        return f"write {rules['required'][0]}: {wording.shortened(instance)}"
    if set(kinds) <= {"string", "null"} and isinstance(instance, int | float):
        return "put it in quotes"
    return ""


def _flow(text: str) -> str:
    """Text as it can stand between brackets."""
    short = wording.shortened(text)
    return short if re.fullmatch(r"[A-Za-z][\w.-]*", short) else f'"{short}"'
