"""agentctl diff: show what differs between what two environments desire."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from agent.cli import bars, output, publishing, teller, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.formats import environments
from agent.model.environments import Environment, Environments
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest
from agent.publish import diff, places, signing
from agent.publish.diff import Difference, FileChange, Side
from agent.publish.origin import Origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

_MOST_FILES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl diff`."""
    parser.add_argument("application", help="whose revisions to compare")
    parser.add_argument("environment", help="the environment that would change")
    parser.add_argument(
        "other",
        nargs="?",
        help="what it would change to: what another environment desires, or a version"
        " (default: what the environment that it requires desires)",
    )
    publishing.add_file_argument(parser)
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print what differs."""
    known = environments.load_environments(args.environments)
    one = environments.choose(known, args.environment)
    two, version = _other(args.other, one, known)
    telling = bars.lines(as_json=True)  # stdout is for the differences
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = _compare(args.application, (one, two), version, Path(folder), telling)
            difference = publishing.run_to_end(work)
    finally:
        telling.close()
    output.show(args, _body(args.application, difference), lambda _, style: _lines(
        args.application, difference, style, time.time()
    ))  # fmt: skip
    return Exit.OK


def _other(given: str | None, one: Environment, known: Environments) -> tuple[Environment, str]:
    """The environment to compare with, and a version of it; "" for what it desires."""
    if given in {each.name for each in known.all}:
        return environments.choose(known, given), ""
    if given is not None:
        return one, given
    if not one.requires:
        raise AgentError(
            f"cannot compare {one.name}: with what?",
            code=Code.BAD_REQUEST,
            remedy="Name another environment, or a version: agentctl diff APPLICATION"
            f" {one.name} OTHER",
        )
    return environments.choose(known, one.requires[0]), ""


async def _compare(
    application: str,
    pair: tuple[Environment, Environment],
    version: str,
    folder: Path,
    telling: teller.Lines,
) -> Difference:
    rings = {each.name: signing.load_to_check(each) for each in pair}
    async with places.opened(*set(pair), warn=telling.say) as opened:
        one, two = (
            Origin(each.name, opened[each.name], rings[each.name], telling) for each in pair
        )
        old = Side(one.name, await one.desired(application))
        if version:
            new = Side(f"version {version}", await two.of_version(application, version))
        else:
            new = Side(two.name, await two.desired(application))
        return await diff.compare(old, new, (one, two), folder)


# for people


def _lines(application: str, difference: Difference, style: text.Style, now: float) -> list[str]:
    old, new = difference.old, difference.new
    if difference.is_same:
        return [
            text.clean(f"{application} {old.manifest.version}: {old.label} and {new.label} have"
                       " the same bundle")
        ]  # fmt: skip
    rows = [[key, *pair] for key, *pair in _facts(old.manifest, new.manifest, now)]
    head, *rest = text.columns([["", old.label, new.label], *rows])
    told = [style("dim", head), *map(text.clean, rest)]
    if not difference.files:
        return [*told, "", "their files are the same"]
    told += ["", *(_change(each, style) for each in difference.files[:_MOST_FILES])]
    if len(difference.files) > _MOST_FILES:
        told.append(f"and {len(difference.files) - _MOST_FILES} more; all of them: --json")
    return [*told, "", _counts(difference.files)]


def _facts(old: Manifest, new: Manifest, now: float) -> list[tuple[str, str, str]]:
    """What the manifests say, where it is not the same."""
    both = [_told(each, now) for each in (old, new)]
    return [(key, both[0][key], both[1][key]) for key in both[0] if both[0][key] != both[1][key]]


def _told(found: Manifest, now: float) -> dict[str, str]:
    bundle, unpacked = found.bundle, found.unpacked
    return {
        "version": found.version,
        "commit": found.commit or "?",
        "built": text.clock(found.built_at, now) if found.built_at else "?",
        "sha256": bundle.sha256[:12] if bundle else "?",
        "size": text.size(bundle.size) if bundle else "?",
        "unpacked": f"{text.size(unpacked.bytes)}, {unpacked.files} files" if unpacked else "?",
        "for": " ".join((*found.compatible.os, *found.compatible.arch)) or "all hosts",
    }


def _change(change: FileChange, style: text.Style) -> str:
    name, old, new = text.clean(change.name), change.old_size, change.new_size
    if old is None and new is not None:
        return style("green", f"+ {name}  {text.size(new)}")
    if new is None and old is not None:
        return style("red", f"- {name}  {text.size(old)}")
    assert old is not None
    assert new is not None
    sizes = text.size(new) if old == new else f"{text.size(old)} -> {text.size(new)}"
    return f"~ {name}  {sizes}"


def _counts(files: tuple[FileChange, ...]) -> str:
    added = sum(each.old_size is None for each in files)
    removed = sum(each.new_size is None for each in files)
    changed = len(files) - added - removed
    return f"{added} added, {removed} removed, {changed} changed"


# for programs


def _body(application: str, difference: Difference) -> Body:
    return {
        "schema": SCHEMA,
        "application": application,
        "same": difference.is_same,
        "old": _side(difference.old),
        "new": _side(difference.new),
        "files": [
            {"name": each.name, "old_size": each.old_size, "new_size": each.new_size}
            for each in difference.files
        ],
    }


def _side(side: Side) -> Body:
    found = side.manifest
    return {
        "label": side.label,
        "version": found.version,
        "sha256": found.bundle.sha256 if found.bundle else "",
        "size": found.bundle.size if found.bundle else 0,
        "commit": found.commit,
        "built_at": found.built_at,
    }
