"""Which hook of a deployment runs, and what the ended ones left: read by the agent's next start.

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

    number:    counted over the whole deployment; a hook that is tried again has a new one.
    since:     when it was about to begin, in clock ticks since boot.
    ordinal:   which of its event's hooks it is.
    began:     when its first try was about to begin, likewise; tries: those before this one.
    outlives:  whether it goes on when the agent ends.
    cursor:    where in the journal its output was read to.
    kept:      bytes of its output that are in the deployment's log.
    """

    number: int
    event: str
    location: str
    since: int
    processes: tuple[Identity, ...] = ()
    ordinal: int = 0
    began: int = 0
    tries: int = 0
    outlives: bool = False
    cursor: str = ""
    kept: int = 0

    def is_run_of(self, event: str, ordinal: int, location: str) -> bool:
        """Whether it is a run of this hook."""
        return (self.event, self.ordinal, self.location) == (event, ordinal, location)


@dataclass(frozen=True, slots=True)
class HookRecord:
    """What is known of a deployment's hooks.

    number:    of the last run.
    pass_name: the row, and the way through it, that ran hooks last ("start", "undo start").
    completed: the hooks of that pass that have succeeded, by event and ordinal.
    parted_in: the pass in which the agent left the deployment in an orderly way, "" if it has not.
    """

    number: int = 0
    running: HookRun | None = None
    left: tuple[HookRun, ...] = ()
    pass_name: str = ""
    completed: tuple[tuple[str, int], ...] = ()
    parted_in: str = ""

    def enter(self, pass_name: str) -> HookRecord:
        """The record at the beginning of a pass."""
        return dataclasses.replace(self, pass_name=pass_name, completed=())

    def begin(self, run: HookRun) -> HookRecord:
        """The record with one more run, which is about to begin; it is given its number."""
        number = self.number + 1
        running = dataclasses.replace(run, number=number)
        return dataclasses.replace(self, number=number, running=running)

    def with_running(self, **changes: object) -> HookRecord:
        """The record with more known of the run."""
        run = self.running and dataclasses.replace(self.running, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self, running=run)

    def end(self, left_over: tuple[Identity, ...], *, succeeded: bool = False) -> HookRecord:
        """The record without the running one; it is kept if it left something."""
        left, completed = self.left, self.completed
        if self.running is not None and left_over:
            left = (*left, dataclasses.replace(self.running, processes=left_over))
        if self.running is not None and succeeded:
            completed = (*completed, (self.running.event, self.running.ordinal))
        return dataclasses.replace(self, running=None, left=left, completed=completed)

    def without(self, number: int) -> HookRecord:
        """The record without what one run left."""
        left = tuple(each for each in self.left if each.number != number)
        return dataclasses.replace(self, left=left)


@dataclass(frozen=True, slots=True)
class Past:
    """How the agent before this one, in the same boot, left a deployment.

    pass_name: the pass that can be gone on with, "" if none. was_orderly: it was asked to end.
    """

    pass_name: str = ""
    was_orderly: bool = False


def load(work_dir: Path) -> HookRecord:
    """The deployment's record; an empty one where there is none of this boot. Blocks."""
    try:
        fields = json.loads((work_dir / _FILENAME).read_text("utf-8"))
        if fields.pop("boot") != processes.boot_id():
            return HookRecord()
        fields["running"] = _run(fields["running"]) if fields["running"] else None
        fields["left"] = tuple(_run(each) for each in fields["left"])
        completed = fields.get("completed", ())
        fields["completed"] = tuple((event, ordinal) for event, ordinal in completed)
        return HookRecord(**fields)
    # cut short by a power loss, or written by another version of the agent
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
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
