"""What Consul knew before a deployment changed it: written first, and undone from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.errors import AgentError, Code, from_os_error
from agent.system import durable

NAME = "traffic.json"

_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Record:
    """Saved as <work_dir>/traffic.json. All name services by their ids.

    before:     the meta of those that were registered.
    blocked:    those that this deployment takes out of traffic.
    registered: those that it registers, or removes.
    added:      those that were not there.
    is_open:    it has let them into traffic again, or was about to.
    """

    before: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    blocked: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    is_open: bool = False


def load(work_dir: Path) -> Record:
    """The record, an empty one where no step of this deployment made one; blocks.

    Raises AgentError.
    """
    path = work_dir / NAME
    try:
        found = json.loads(path.read_bytes())
        if found["level"] != _LEVEL:
            raise ValueError("its format level is not known")
        return Record(
            before=found["before"],
            blocked=tuple(found["blocked"]),
            registered=tuple(found["registered"]),
            added=tuple(found["added"]),
            is_open=found["is_open"],
        )
    except FileNotFoundError:
        return Record()
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.STATE_DAMAGED) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"cannot read {path}: {error}",
            code=Code.STATE_DAMAGED,
            remedy="See that the services are as they should be in Consul: agentctl status",
        ) from error


def save(work_dir: Path, record: Record) -> None:
    """Write the record, to outlive a power loss; blocks. Raises AgentError."""
    path = work_dir / NAME
    content = {"level": _LEVEL, **dataclasses.asdict(record)}
    try:
        durable.write_atomically(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise from_os_error(error, f"write {path}", code=Code.DISK_FULL) from error
