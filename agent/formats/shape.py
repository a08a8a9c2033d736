"""Says quickly of a value that a JSON Schema allows it; has nothing to say of any other.

jsonschema alone decides what is wrong, and says so. But it takes 3 MB and 0.1 s, and what an agent
is given is right nearly always: so it is asked where this here does not say yes. The keywords of
our own schemas are known, as JSON Schema draft 7 defines them; any other one is no yes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Rules = Mapping[str, Any] | bool  # true allows everything, false nothing

_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_OF_OBJECTS = {
    "required",
    "minProperties",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
}
_SAYS_NOTHING = {"$schema", "title", "description", "definitions", "errorMessage", "unknownKey"}


def is_allowed(value: object, whole: Mapping[str, Any]) -> bool:
    """Whether a value is allowed by a schema, for sure."""
    return _Shape(whole).allows(value, whole)


class _Shape:
    def __init__(self, whole: Mapping[str, Any]) -> None:
        self._whole = whole

    def allows(self, value: Any, rules: Rules) -> bool:
        if isinstance(rules, bool):
            return rules
        if "$ref" in rules:  # whose neighbours do not count
            _, _, name = rules["$ref"].rpartition("#/definitions/")
            return self.allows(value, self._whole["definitions"][name])
        return all(
            keyword in _SAYS_NOTHING or self._follows(value, keyword, rule, rules)
            for keyword, rule in rules.items()
        )

    def _follows(self, value: Any, keyword: str, rule: Any, rules: Mapping[str, Any]) -> bool:
        match keyword:
            case "type":
                kinds = [rule] if isinstance(rule, str) else rule
                return any(_KINDS[kind](value) for kind in kinds)
            case "enum":
                return any(_is_same(value, each) for each in rule)
            case "const":
                return _is_same(value, rule)
            case "not":
                return self._is_surely_refused(value, rule)
            case "allOf":
                return all(self.allows(value, each) for each in rule)
            case "pattern" | "minLength" | "maxLength":
                return not isinstance(value, str) or _is_text(value, keyword, rule)
            case "minimum" | "maximum" | "exclusiveMinimum":
                return not _is_number(value) or _is_in_range(value, keyword, rule)
            case "items":
                return not isinstance(value, list) or all(self.allows(each, rule) for each in value)
            case _:
                return self._follows_of_object(value, keyword, rule, rules)

    def _follows_of_object(
        self, value: Any, keyword: str, rule: Any, rules: Mapping[str, Any]
    ) -> bool:
        if keyword not in _OF_OBJECTS:
            return False
        if not isinstance(value, dict):
            return True
        are_words = all(isinstance(key, str) for key in value)
        return are_words and self._has_keys(value, keyword, rule, rules)

    def _is_surely_refused(self, value: Any, rules: Mapping[str, Any]) -> bool:
        """For `not`: to allow nothing for sure is not to refuse it, but for a bare `const`."""
        return set(rules) == {"const"} and not self.allows(value, rules)

    def _has_keys(
        self, value: dict[str, Any], keyword: str, rule: Any, rules: Mapping[str, Any]
    ) -> bool:
        known = rules.get("properties", {})
        patterns = rules.get("patternProperties", {})
        match keyword:
            case "required":
                return all(name in value for name in rule)
            case "minProperties":
                return len(value) >= int(rule)
            case "properties":
                return all(self.allows(value[key], rule[key]) for key in rule if key in value)
            case "patternProperties":
                return all(
                    self.allows(each, rules_of_it)
                    for pattern, rules_of_it in rule.items()
                    for key, each in value.items()
                    if re.search(pattern, key)
                )
            case "additionalProperties":
                return all(
                    key in known
                    or any(re.search(pattern, key) for pattern in patterns)
                    or self.allows(each, rule)
                    for key, each in value.items()
                )
            case "propertyNames":
                return all(self.allows(key, rule) for key in value)
            case _:
                return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(value: object, other: object) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _is_text(value: str, keyword: str, rule: Any) -> bool:
    match keyword:
        case "minLength":
            return len(value) >= int(rule)
        case "maxLength":
            return len(value) <= int(rule)
        case _:
            strict = rule[:-1] + r"\Z" if rule.endswith("$") else rule
            return re.search(strict, value) is not None


def _is_in_range(value: float, keyword: str, rule: float) -> bool:
    """As jsonschema has it, to which .nan is in every range."""
    match keyword:
        case "minimum":
            return not value < rule
        case "maximum":
            return not value > rule
        case _:
            return not value <= rule
