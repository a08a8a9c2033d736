"""What is done with a deployment that had not ended when the agent stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.hooks.record import Past
from agent.lifecycle import AFTERWARDS, Crash, Row
from agent.model.deployment import Deployment, Status, Step, StepName


class Direction(StrEnum):
    """Which way a deployment goes on."""

    FORWARD = "forward"
    BACKWARD = "backward"
    AFTERWARDS = "afterwards"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where in the table a deployment goes on. why: one sentence for the log.

    goes_on: the pass that is entered is one that the former agent left for this one to go on with.
    counts:  whether it is one of the starts that are limited.
    """

    direction: Direction
    index: int
    why: str
    goes_on: bool = False
    counts: bool = True


def choose_entry(
    deployment: Deployment, steps: Sequence[Step], rows: Sequence[Row], past: Past
) -> Entry:
    """Map a saved deployment to where it goes on; a step that is not known means undo.

    past: how the former agent of this boot left it. What it left in an orderly way, or in a hook
    that has gone on without it, is gone on with where the table says undo: nothing was lost.
    """
    entry = _choose(deployment, steps, rows, past)
    return dataclasses.replace(entry, counts=not past.was_orderly)


def _choose(
    deployment: Deployment, steps: Sequence[Step], rows: Sequence[Row], past: Past
) -> Entry:
    if deployment.outcome is not None:
        return _afterwards(deployment)
    if deployment.step is None:
        return Entry(Direction.FORWARD, 0, "from the start")
    names = [row.name for row in rows]
    if deployment.step not in names:
        return Entry(Direction.BACKWARD, len(rows) - 1, f"unknown step {deployment.step}: undo")
    index = names.index(deployment.step)
    row = rows[index]
    if deployment.status is Status.UNDOING:
        goes_on = past.pass_name == pass_name(row, is_undo=True)
        return Entry(Direction.BACKWARD, index, f"go on with the undo of {row.name}", goes_on)
    status = next((step.status for step in steps if step.name is row.name), Status.DOING)
    if status is Status.DONE:
        return Entry(Direction.FORWARD, index + 1, f"{row.name} was done: go on after it")
    if status is Status.DOING and past.pass_name == pass_name(row, is_undo=False):
        return Entry(Direction.FORWARD, index, f"go on with {row.name}", goes_on=True)
    if status is Status.DOING and row.crash is Crash.RESUME:
        return Entry(Direction.FORWARD, index, f"the agent stopped in {row.name}: do it again")
    return Entry(Direction.BACKWARD, index, f"the agent stopped in {row.name}: undo")


def pass_name(row: Row, *, is_undo: bool) -> str:
    """What a row's do or undo is called where hooks are recorded."""
    return f"undo {row.name}" if is_undo else row.name.value


def _afterwards(deployment: Deployment) -> Entry:
    names = [row.name for row in AFTERWARDS]
    step = deployment.step
    index = names.index(step) if step in names else 0
    return Entry(
        Direction.AFTERWARDS, index, f"ended {deployment.outcome}: finish {StepName.PRUNE}"
    )
