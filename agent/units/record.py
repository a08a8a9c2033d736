"""What the units were before a deployment touched them: written first, and undone from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.model.errors import AgentError, Code, from_os_error
from agent.system import durable

NAME = "units.json"

_LEVEL = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Before:
    """One unit as it was: see UnitState.

    enablement: as `systemctl is-enabled` says it. links: those that `enable` makes, by path.
    """

    active: str
    sub: str
    enablement: str
    invocation: str
    links: tuple[str, ...] = ()

    @property
    def was_running(self) -> bool:
        """Whether it was started, and had neither ended nor was about to."""
        return self.active in ("active", "reloading", "activating")

    @property
    def was_up(self) -> bool:
        """Whether it ran properly: one that was being started again and again did not."""
        return self.active in ("active", "reloading")


@dataclass(frozen=True, slots=True)
class Started:
    """How a unit was when it had been started: see UnitState. at: in seconds since the epoch."""

    invocation: str
    restarts: int
    at: float


@dataclass(frozen=True, slots=True)
class Scene:
    """How it was just before the ApplicationStart hooks: by unit, its invocation while it ran.

    cursor: the journal's newest entry, "" where the journal cannot be read.
    """

    invocations: Mapping[str, str]
    cursor: str


@dataclass(frozen=True, slots=True)
class Record:
    """Saved as <work_dir>/units.json.

    before:     by unit, of the revision that is replaced and of the new one.
    reload_due: unit files may be other ones than systemd has read.
    scene:      None until the start step began.
    started:    by unit, what the start step started, in `boot`.
    boot:       the kernel's id of the boot in which that was; units that are enabled are started
                anew by the next one.
    cursor:     of the journal: what the units wrote until there is in the deployment's log.
    """

    before: Mapping[str, Before] = field(default_factory=dict)
    reload_due: bool = False
    scene: Scene | None = None
    started: Mapping[str, Started] = field(default_factory=dict)
    boot: str = ""
    cursor: str = ""


def boot_id() -> str:
    """The id of this boot (random(4)); blocks."""
    return _BOOT_ID.read_text().strip()


def load(work_dir: Path) -> Record | None:
    """The record, None where no step of this deployment made one; blocks. Raises AgentError."""
    path = work_dir / NAME
    try:
        found = json.loads(path.read_bytes())
        if found["level"] != _LEVEL:
            raise ValueError(f"its format level is {found['level']}, not {_LEVEL}")
        return Record(
            before={
                name: Before(**{**each, "links": tuple(each["links"])})
                for name, each in found["before"].items()
            },
            reload_due=found["reload_due"],
            scene=Scene(**found["scene"]) if found["scene"] else None,
            started={name: Started(**each) for name, each in found["started"].items()},
            boot=found["boot"],
            cursor=found["cursor"],
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.UNIT_FAILED) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"cannot read {path}: {error}",
            code=Code.UNIT_FAILED,
            remedy="See that the units are as they should be (systemctl status), then deploy again",
        ) from error


def save(work_dir: Path, record: Record) -> None:
    """Write the record, to outlive a power loss; blocks. Raises AgentError."""
    path = work_dir / NAME
    content: dict[str, Any] = {"level": _LEVEL, **dataclasses.asdict(record)}
    try:
        durable.write_atomically(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise from_os_error(error, f"write {path}", code=Code.UNIT_FAILED) from error
