"""release.json, in a bundle's root or as a pointer, from text to its model and back.

Until its signature is checked it is a stranger's text: its size, depth and numbers have limits.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from agent.formats import schema, wording
from agent.model.errors import AgentError, Code
from agent.model.manifest import BundleRef, Compatible, Manifest, Unpacked

FILENAME = "release.json"
MAX_BYTES = 2**20
"""Of the release.json in a bundle, where a team may keep what it likes."""
POINTER_MAX_BYTES = 2**16

_SCHEMA = 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MOST_DIGITS = 20


def parse_manifest(text: bytes) -> Manifest:
    """Parse the release.json of a bundle; keys that are not known here are ignored.

    One without `schema` may be a team's own: only its version and application are read.
    Raises AgentError (BUNDLE_REFUSED) unless it is a JSON object with a usable version.
    """
    try:
        content = _object(text, MAX_BYTES)
        if "schema" not in content:
            known = ("version", "application")
            content = {key: content[key] for key in known if key in content}
        return _manifest(content)
    except ValueError as error:
        raise AgentError(
            f"cannot use {FILENAME}: {error}",
            code=Code.BUNDLE_REFUSED,
            remedy='Write it as {"version": "1.214"} and build the bundle again',
        ) from error


def parse_pointer(text: bytes, *, where: str = "") -> Manifest:
    """Parse a manifest that says which bundle is desired: application and bundle are there.

    where: its URL, for the message. Raises AgentError (MANIFEST_REFUSED).
    """
    try:
        content = _object(text, POINTER_MAX_BYTES)
        for key in ("application", "bundle"):
            if key not in content:
                raise ValueError(f"it has no {key}")
        return _manifest(content)
    except ValueError as error:
        raise AgentError(
            f"cannot use the manifest {where or FILENAME}: {error}",
            code=Code.MANIFEST_REFUSED,
            remedy="Publish it again, by: agentctl push",
        ) from error


def dump_manifest(manifest: Manifest) -> bytes:
    """The one spelling of a manifest: sorted keys, two blanks of indent, a newline at its end.

    Times are cut to whole seconds. Raises AgentError (MANIFEST_REFUSED) for what could not be
    parsed again.
    """
    try:
        content = _content(manifest)
        text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        _manifest(_object(text.encode(), POINTER_MAX_BYTES))
    except (
        ValueError,
        OverflowError,
        OSError,
    ) as error:  # the last two: of a time beyond all years
        name = wording.name(manifest.version)
        raise AgentError(
            f"cannot write the manifest of {name}: {error}", code=Code.MANIFEST_REFUSED
        ) from error
    return text.encode()


# ------------------------------------------------------------------ text to JSON object


def _object(text: bytes, most: int) -> dict[str, Any]:
    """The JSON object that the text is; raises ValueError."""
    if len(text) > most:
        raise ValueError(f"it has more than {most // 1024} KiB")
    try:
        content = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_int,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is no JSON for here: it is nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 all rubbish is one to the caller
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two values for a key, a checker might see the one and a user the other."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"it has the key {wording.name(key)} twice")
        content[key] = value
    return content


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _no_constant(word: str) -> object:
    raise ValueError(f"it has the number {word}, which is no JSON")


# ------------------------------------------------------------------ JSON object to model


def _manifest(content: dict[str, Any]) -> Manifest:
    """Raises ValueError that names the first wrong key and its value."""
    for found in schema.validate(content, "release"):
        raise ValueError(f"{_key(found.path)} {found.message}")
    words = ("version", "application", "deployment_group", "commit")
    for key in words:
        if not content.get(key, "").isprintable():
            raise ValueError(f"{key} must be a word of 1 to 128 signs, is {content[key]!r}")
    bundle, unpacked = content.get("bundle"), content.get("unpacked")
    compatible = content.get("compatible", {})
    return Manifest(
        **{key: content[key] for key in words if key in content},
        bundle=bundle and BundleRef(bundle["url"], bundle["sha256"], int(bundle["size"])),
        unpacked=unpacked and Unpacked(int(unpacked["bytes"]), int(unpacked["files"])),
        built_at=_seconds("built_at", content),
        serial=int(content.get("serial", 0)),
        expires=_seconds("expires", content),
        compatible=Compatible(
            os=tuple(compatible.get("os", ())), arch=tuple(compatible.get("arch", ()))
        ),
    )


def _key(path: tuple[str | int, ...]) -> str:
    """A path as people write it: compatible.os[0]; "it" for the whole."""
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{each}"
    return text.removeprefix(".") or "it"


def _seconds(key: str, content: dict[str, Any]) -> float:
    if key not in content:
        return 0.0
    try:
        return datetime.fromisoformat(content[key]).timestamp()
    except ValueError as error:
        raise ValueError(f"{key} must be a time of the calendar, is {content[key]}") from error


# ------------------------------------------------------------------ model to JSON object


def _content(manifest: Manifest) -> dict[str, object]:
    content: dict[str, object] = {
        "application": manifest.application,
        "built_at": _time(manifest.built_at),
        "commit": manifest.commit,
        "deployment_group": manifest.deployment_group,
        "expires": _time(manifest.expires),
        "serial": manifest.serial,
    }
    content = {key: value for key, value in content.items() if value}
    content |= {"schema": _SCHEMA, "version": manifest.version}
    if bundle := manifest.bundle:
        content["bundle"] = {"url": bundle.url, "sha256": bundle.sha256, "size": bundle.size}
    if unpacked := manifest.unpacked:
        content["unpacked"] = {"bytes": unpacked.bytes, "files": unpacked.files}
    lists = {"os": manifest.compatible.os, "arch": manifest.compatible.arch}
    if any(lists.values()):
        content["compatible"] = {key: list(words) for key, words in lists.items() if words}
    return content


def _time(seconds: float) -> str:
    """A moment as RFC 3339 has it, in UTC; "" for 0."""
    return time.strftime(_TIME, time.gmtime(seconds)) if seconds else ""
