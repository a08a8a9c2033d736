"""What is done with a deployment that had not ended when the agent stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.lifecycle import AFTERWARDS, Crash, Row
from agent.model.deployment import Deployment, Status, Step, StepName


class Direction(StrEnum):
    """Which way a deployment goes on."""

    FORWARD = "forward"
    BACKWARD = "backward"
    AFTERWARDS = "afterwards"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where in the table a deployment goes on. why: one sentence for the log."""

    direction: Direction
    index: int
    why: str


def choose_entry(deployment: Deployment, steps: Sequence[Step], rows: Sequence[Row]) -> Entry:
    """Map a saved deployment to where it goes on; a step that is not known means undo."""
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
        return Entry(Direction.BACKWARD, index, f"go on with the undo of {row.name}")
    status = next((step.status for step in steps if step.name is row.name), Status.DOING)
    if status is Status.DONE:
        return Entry(Direction.FORWARD, index + 1, f"{row.name} was done: go on after it")
    if status is Status.DOING and row.crash is Crash.RESUME:
        return Entry(Direction.FORWARD, index, f"the agent stopped in {row.name}: do it again")
    return Entry(Direction.BACKWARD, index, f"the agent stopped in {row.name}: undo")


def _afterwards(deployment: Deployment) -> Entry:
    names = [row.name for row in AFTERWARDS]
    step = deployment.step
    index = names.index(step) if step in names else 0
    return Entry(
        Direction.AFTERWARDS, index, f"ended {deployment.outcome}: finish {StepName.PRUNE}"
    )
