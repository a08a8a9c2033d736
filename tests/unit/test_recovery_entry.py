"""Where a deployment goes on after the agent stopped: the whole mapping as a table."""

from __future__ import annotations

import dataclasses

import pytest

from agent.hooks.record import Past
from agent.lifecycle import AFTERWARDS, LIFECYCLE, Crash
from agent.model.deployment import (
    Deployment,
    Outcome,
    Revision,
    Status,
    Step,
    StepName,
    Trigger,
)
from agent.recovery import Direction, choose_entry

NOTHING = Past()
DEPLOYMENT = Deployment(
    id="d-1",
    revision=Revision("a", "g", "1", "/b"),
    release="d-1",
    trigger=Trigger.OPERATOR,
    requested_by="x",
    status=Status.DOING,
    created_at=1.0,
)


def entry(
    step: StepName | None, step_status: Status, past: Past = NOTHING, **changes: object
) -> tuple[Direction, int]:
    deployment = dataclasses.replace(DEPLOYMENT, step=step, **changes)
    steps = [] if step is None else [Step(step, step_status, 1.0)]
    found = choose_entry(deployment, steps, LIFECYCLE, past)
    return found.direction, found.index


def test_nothing_begun_is_begun() -> None:
    assert entry(None, Status.PENDING, status=Status.PENDING) == (Direction.FORWARD, 0)


@pytest.mark.parametrize("index", range(len(LIFECYCLE)))
def test_row_in_each_status(index: int) -> None:
    row = LIFECYCLE[index]
    doing = Direction.FORWARD if row.crash is Crash.RESUME else Direction.BACKWARD
    assert entry(row.name, Status.DOING) == (doing, index)
    assert entry(row.name, Status.DONE) == (Direction.FORWARD, index + 1)
    assert entry(row.name, Status.FAILED) == (Direction.BACKWARD, index)
    for status in (Status.DOING, Status.UNDOING, Status.UNDONE, Status.DONE):
        found = entry(row.name, status, status=Status.UNDOING)
        assert found == (Direction.BACKWARD, index)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_ended_deployment_is_only_finished(outcome: Outcome) -> None:
    for index, row in enumerate(AFTERWARDS):
        found = entry(row.name, Status.DOING, outcome=outcome)
        assert found == (Direction.AFTERWARDS, index)
    found = entry(StepName.COMMIT, Status.DONE, outcome=outcome)
    assert found == (Direction.AFTERWARDS, 0)


def test_unknown_step_means_undo_of_all() -> None:
    found = choose_entry(
        dataclasses.replace(DEPLOYMENT, step=StepName.INSTALL), [], LIFECYCLE[:3], NOTHING
    )
    assert (found.direction, found.index) == (Direction.BACKWARD, 2)
