"""Which values a deployment gets: Consul's, or those that are kept on this host.

They are kept beside the release that runs with them, so that a rollback has the values of then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from agent.environment import variables
from agent.model.appspec import AppSpec, EnvironmentFile
from agent.model.consul import KvSnapshot
from agent.model.errors import AgentError, Code, from_os_error
from agent.system import durable

_SCHEMA = 1


class Keys(Protocol):
    """The keys of Consul."""

    async def read_prefix(self, prefix: str, *, is_consistent: bool = False) -> KvSnapshot:
        """All values below a prefix; raises AgentError."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The variables of one prefix. index: of Consul, when they were read."""

    index: int
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """Snapshots by prefix. passed_over: digests of values that nothing is done about by itself.

    Those are Consul's values at a rollback, which goes back to those of then.
    """

    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    passed_over: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What a deployment writes. problems refuse it; warnings are worth knowing."""

    kept: Kept
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def files_of(appspec: AppSpec) -> tuple[EnvironmentFile, ...]:
    """The environments of its services, in their order."""
    return tuple(each.environment for each in appspec.services if each.environment is not None)


def load(path: Path) -> Kept:
    """What is kept; nothing where there is no file. Blocks; raises AgentError."""
    try:
        found = json.loads(path.read_text("utf-8"))
        snapshots = {name: Snapshot(**each) for name, each in found["snapshots"].items()}
        return Kept(snapshots, tuple(found["passed_over"]))
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.STATE_DAMAGED) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"cannot read {path}: it is damaged",
            code=Code.STATE_DAMAGED,
            remedy=f"Remove it: the values come from Consul again. rm {path}",
        ) from error


def content(kept: Kept) -> bytes:
    """As it is kept, for root only."""
    return json.dumps({"schema": _SCHEMA, **asdict(kept)}).encode()


def save(path: Path, kept: Kept) -> None:
    """Keep it; blocks. Raises AgentError."""
    try:
        durable.write_atomically(path, content(kept))
    except OSError as error:
        raise from_os_error(error, f"write {path}", code=Code.DISK_FULL) from error


async def choose(keys: Keys | None, prefixes: Sequence[str], last: Kept) -> Choice:
    """Consul's values, and for what it does not tell those that are kept on this host."""
    snapshots: dict[str, Snapshot] = {}
    problems, warnings = [], []
    for prefix in dict.fromkeys(prefixes):
        known = last.snapshots.get(prefix)
        try:
            snapshots[prefix] = await read(keys, prefix)
        except AgentError as error:
            remedy = f". {error.remedy}" if error.remedy else ""
            if known is None:
                problems.append(f"{error.message}; no earlier values are on this host{remedy}")
                continue
            snapshots[prefix] = known
            warnings.append(
                f"{error.message}; the values of index {known.index} stay, which are on this"
                f" host{remedy}"
            )
    return Choice(Kept(snapshots), tuple(problems), tuple(warnings))


async def choose_then(
    keys: Keys | None, prefixes: Sequence[str], then: Kept, current: Kept
) -> Choice:
    """For a rollback: the values of then; Consul's are passed over until they change."""
    missing = [prefix for prefix in prefixes if prefix not in then.snapshots]
    found = await choose(keys, missing, current)
    passed = [variables.digest_of(each.values) for each in current.snapshots.values()]
    for prefix in prefixes:
        if prefix in then.snapshots:
            try:
                now = await read(keys, prefix)
            except AgentError:
                continue
            passed.append(variables.digest_of(now.values))
    snapshots = {each: then.snapshots[each] for each in prefixes if each in then.snapshots}
    own = {variables.digest_of(each.values) for each in snapshots.values()}
    kept = Kept({**snapshots, **found.kept.snapshots}, tuple(dict.fromkeys(set(passed) - own)))
    return Choice(kept, found.problems, found.warnings)


async def read(keys: Keys | None, prefix: str) -> Snapshot:
    """A prefix's values as Consul has them now; raises AgentError."""
    if keys is None:
        raise AgentError(
            f"cannot read the keys below {prefix}/: no Consul is configured",
            code=Code.CONFIG_INVALID,
            remedy="Add a section consul to agent.yaml (docs/consul.md)",
        )
    snapshot = await keys.read_prefix(prefix, is_consistent=True)
    return Snapshot(snapshot.index, variables.parse_values(snapshot))
