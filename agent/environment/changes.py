"""What one deployment does to environments, in its folder from plan to prune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.environment import files, snapshots, variables
from agent.environment.files import Wanted
from agent.environment.snapshots import Choice, Kept
from agent.files import planfile
from agent.model.appspec import AppSpec, EnvironmentFile
from agent.model.errors import Code, from_os_error
from agent.system import durable

_CHOSEN = "environment.json"
_DIGESTS = "environment-digests.json"
_TOLD = "environment-told"


@dataclass(frozen=True, slots=True)
class Digests:
    """What tells values apart, by prefix. changed: the prefixes whose values are other ones now."""

    digests: Mapping[str, str] = field(default_factory=dict)
    changed: Sequence[str] = ()


def note(work_dir: Path, choice: Choice, old: Kept) -> None:
    """Save what was chosen; blocks. Raises AgentError."""
    new = choice.kept.snapshots
    if not new and not old.snapshots:
        return
    digests = {prefix: variables.digest_of(each.values) for prefix, each in new.items()}
    before = {prefix: variables.digest_of(each.values) for prefix, each in old.snapshots.items()}
    changed = [prefix for prefix, digest in digests.items() if before.get(prefix) != digest]
    snapshots.save(work_dir / _CHOSEN, choice.kept)
    try:
        text = json.dumps({"digests": digests, "changed": changed})
        durable.write_atomically(work_dir / _DIGESTS, text.encode())
    except OSError as error:
        raise from_os_error(error, f"write {work_dir / _DIGESTS}", code=Code.DISK_FULL) from error


def digests(work_dir: Path) -> Digests:
    """Of a deployment, also after its prune; empty where there are none. Blocks."""
    try:
        return Digests(**json.loads((work_dir / _DIGESTS).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Digests()


def check(work_dir: Path, appspec: AppSpec, choice: Choice) -> None:
    """Add to the plan what is wrong with the environments; blocks. Raises AgentError."""
    found = [("problem", text) for text in choice.problems]
    found += [("warning", text) for text in choice.warnings]
    paths = [each.path for each in snapshots.files_of(appspec)]
    taken = _planned(work_dir, paths, "action NOT IN ('remove', 'rmdir')")
    found += [
        ("problem", f"{path}: it is in the bundle, and the environment of a service as well")
        for path in sorted(taken)
    ]
    if found:
        with planfile.opened(work_dir / planfile.NAME) as plan, planfile.transaction(plan):
            for kind, text in found:
                planfile.add_finding(plan, kind, text)


def install(
    work_dir: Path,
    new: Sequence[EnvironmentFile],
    old: Sequence[EnvironmentFile],
    kept_path: Path,
) -> str:
    """Write what was chosen, and keep it at kept_path; what was done, in words. Blocks.

    All of it is undone by files.undo. Raises AgentError.
    """
    kept = snapshots.load(work_dir / _CHOSEN)
    wanted = [_wanted(each, kept) for each in new]
    going = {each.path for each in old} - {each.path for each in new}
    in_bundle = _planned(work_dir, sorted(going), "action NOT IN ('remove', 'rmdir')")
    wanted += [Wanted(Path(path), None) for path in sorted(going - in_bundle)]
    wanted.append(Wanted(kept_path, snapshots.content(kept) if kept.snapshots else None))
    files.install(work_dir, wanted)
    told = [
        f"{each.path} with {len(kept.snapshots[each.prefix].values)} variables of index"
        f" {kept.snapshots[each.prefix].index}"
        for each in new
    ]
    return "; " + ", ".join(told) if told else ""


def told(work_dir: Path) -> Sequence[str]:
    """The units that were told of the change, or were about to be; blocks."""
    try:
        return [str(each) for each in json.loads((work_dir / _TOLD).read_text("utf-8"))]
    except (OSError, ValueError):
        return ()


def note_told(work_dir: Path, units: Sequence[str]) -> None:
    """These are about to be told; blocks. Raises AgentError."""
    try:
        durable.write_atomically(work_dir / _TOLD, json.dumps(list(units)).encode())
    except OSError as error:
        raise from_os_error(error, f"write {work_dir / _TOLD}", code=Code.DISK_FULL) from error


def forget(work_dir: Path) -> None:
    """Remove the secrets in the folder of a deployment that has ended; blocks. Raises OSError."""
    files.forget(work_dir)
    (work_dir / _CHOSEN).unlink(missing_ok=True)


def _wanted(file: EnvironmentFile, kept: Kept) -> Wanted:
    text = variables.write_text(file.prefix, kept.snapshots[file.prefix].values)
    return Wanted(
        Path(file.path), text.encode(), mode=file.mode, owner=file.owner, group=file.group
    )


def _planned(work_dir: Path, paths: Sequence[str], which: str) -> set[str]:
    """Those of the paths that are in the deployment's plan of files."""
    if not paths:
        return set()
    with planfile.opened(work_dir / planfile.NAME) as plan:
        rows = [
            plan.execute(
                f"SELECT path FROM planned WHERE path = ? AND {which}",  # noqa: S608
                (path,),
            ).fetchone()
            for path in paths
        ]
    return {str(row[0]) for row in rows if row is not None}
