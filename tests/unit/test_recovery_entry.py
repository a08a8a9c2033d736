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


@pytest.mark.parametrize("index", range(len(LIFECYCLE)))
def test_what_goes_on_is_gone_on_with(index: int) -> None:
    row = LIFECYCLE[index]
    deployment = dataclasses.replace(DEPLOYMENT, step=row.name)
    steps = [Step(row.name, Status.DOING, 1.0)]
    for was_orderly in (False, True):
        past = Past(row.name, was_orderly=was_orderly)
        found = choose_entry(deployment, steps, LIFECYCLE, past)
        assert (found.direction, found.index) == (Direction.FORWARD, index)
        assert (found.goes_on, found.counts) == (True, not was_orderly)


@pytest.mark.parametrize("index", range(len(LIFECYCLE)))
def test_undo_goes_on_with_its_own_pass_only(index: int) -> None:
    row = LIFECYCLE[index]
    deployment = dataclasses.replace(DEPLOYMENT, step=row.name, status=Status.UNDOING)
    for pass_name, goes_on in ((f"undo {row.name}", True), (row.name.value, False), ("", False)):
        found = choose_entry(deployment, [], LIFECYCLE, Past(pass_name))
        assert (found.direction, found.index) == (Direction.BACKWARD, index)
        assert found.goes_on is goes_on


def test_a_pass_that_is_not_the_one_of_the_step_changes_nothing() -> None:
    doing = entry(StepName.INSTALL, Status.DOING, Past("before-install"))
    assert doing == entry(StepName.INSTALL, Status.DOING)
    done = entry(StepName.AFTER_INSTALL, Status.DONE, Past("after-install", was_orderly=True))
    assert done == entry(StepName.AFTER_INSTALL, Status.DONE)
    failed = entry(StepName.AFTER_INSTALL, Status.FAILED, Past("after-install", was_orderly=True))
    assert failed == entry(StepName.AFTER_INSTALL, Status.FAILED)


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
