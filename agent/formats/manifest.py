"""release.json, the description of a bundle in its root, to its model."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.formats import wording
from agent.model.errors import AgentError, Code

FILENAME = "release.json"
MAX_BYTES = 2**20
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class Manifest:
    """version: of the revision, such as 1.214. application: "" where it names none."""

    version: str
    application: str = ""


def parse_manifest(text: bytes) -> Manifest:
    """Parse release.json; keys that are not known here are ignored.

    Raises AgentError (BUNDLE_REFUSED) unless it is a JSON object with a usable version.
    """
    if len(text) > MAX_BYTES:
        raise _refused(f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        content = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _refused("it is no UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _refused("it is no JSON object")
    if "version" not in content:
        raise _refused("it has no version")
    return Manifest(
        version=_word("version", content["version"]),
        application=_word("application", content["application"])
        if "application" in content
        else "",
    )


def _word(key: str, value: object) -> str:
    """Text that can stand in a path, a log line and a table."""
    if not isinstance(value, str):
        raise _refused(f"{key} must be text, is {wording.shown(value)}")
    is_word = value.isprintable() and not set(value) & {" ", "/", "\\"}
    if not (value and is_word and len(value) <= _LONGEST and value not in (".", "..")):
        raise _refused(f"{key} must be a word of 1 to {_LONGEST} signs, is {wording.shown(value)}")
    return value


def _refused(cause: str) -> AgentError:
    return AgentError(
        f"cannot use {FILENAME}: {cause}",
        code=Code.BUNDLE_REFUSED,
        remedy='Write it as {"version": "1.214"} and build the bundle again',
    )
