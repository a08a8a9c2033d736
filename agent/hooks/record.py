"""Which hook of a deployment runs, and what the ended ones left: read after the agent was killed.

One small file in the deployment's folder. It is not synced: after a power loss nothing of it
runs any more, and the boot's id says so.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.system import processes
from agent.system.processes import Identity

_FILENAME = "hooks.json"


@dataclass(frozen=True, slots=True)
class HookRun:
    """One run of a hook. processes: the main one while it runs, then those it left.

    since: when it was about to begin, in clock ticks since boot.
    """

    number: int
    event: str
    location: str
    since: int
    processes: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class HookRecord:
    """number: of the last run, counted over the whole deployment."""

    number: int = 0
    running: HookRun | None = None
    left: tuple[HookRun, ...] = ()

    def begin(self, event: str, location: str, since: int) -> tuple[HookRecord, HookRun]:
        """The record with one more run, which is about to begin."""
        run = HookRun(self.number + 1, event, location, since)
        return dataclasses.replace(self, number=run.number, running=run), run

    def with_main(self, main: Identity) -> HookRecord:
        """The record with the main process of the run."""
        run = self.running and dataclasses.replace(self.running, processes=(main,))
        return dataclasses.replace(self, running=run)

    def end(self, left_over: tuple[Identity, ...]) -> HookRecord:
        """The record without the running one; it is kept if it left something."""
        left = self.left
        if self.running is not None and left_over:
            left = (*left, dataclasses.replace(self.running, processes=left_over))
        return dataclasses.replace(self, running=None, left=left)

    def without(self, run: HookRun) -> HookRecord:
        """The record without what one run left."""
        left = tuple(each for each in self.left if each.number != run.number)
        return dataclasses.replace(self, left=left)


def load(work_dir: Path) -> HookRecord:
    """The deployment's record; an empty one where there is none of this boot. Blocks."""
    try:
        fields = json.loads((work_dir / _FILENAME).read_text("utf-8"))
        if fields["boot"] != processes.boot_id():
            return HookRecord()
        return HookRecord(
            number=fields["number"],
            running=_run(fields["running"]) if fields["running"] else None,
            left=tuple(_run(each) for each in fields["left"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # cut short by a power loss
        return HookRecord()


def save(work_dir: Path, record: HookRecord) -> None:
    """Replace the deployment's record; blocks. Raises OSError."""
    fields = {"boot": processes.boot_id(), **dataclasses.asdict(record)}
    partial = work_dir / f"{_FILENAME}.partial"
    partial.write_text(json.dumps(fields), "utf-8")
    os.rename(partial, work_dir / _FILENAME)


def _run(fields: dict[str, Any]) -> HookRun:
    known = tuple((pid, start) for pid, start in fields.pop("processes"))
    return HookRun(**fields, processes=known)
