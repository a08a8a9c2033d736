"""State: what is saved is there again, in whole transactions, and bad files are refused."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from pathlib import Path

import pytest

from agent.model.deployment import (
    Deployment,
    Failure,
    Outcome,
    Revision,
    Status,
    Step,
    StepName,
    Trigger,
)
from agent.model.errors import AgentError, Code, NotFound
from agent.store.state import Hold, Quarantined, State


def deployment(deployment_id: str, application: str = "web", **changes: object) -> Deployment:
    made = Deployment(
        id=deployment_id,
        revision=Revision(application, "default", "1.0", "/b.zip", "ab" * 32, "id-1", 7),
        release=deployment_id,
        trigger=Trigger.OPERATOR,
        requested_by="anna",
        status=Status.PENDING,
        created_at=1000.5,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state.db")


def test_deployment_and_steps_come_back_as_they_were(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    failure = Failure("hook-failed", "ApplicationStart x", "cannot", ("line 1", "ä"), "look")
    saved = deployment(
        "d-1",
        status=Status.FAILED,
        outcome=Outcome.ROLLED_BACK,
        step=StepName.START,
        failure=failure,
        starts=3,
    )
    steps = [
        Step(StepName.FETCH, Status.DONE, 1.0, 0.5, note="x"),
        Step(StepName.START, Status.UNDONE, 2.0, 0.1, 0.2, failure=failure),
    ]
    state.save(saved, steps)
    state.close()
    again = State(tmp_path / "state.db")
    assert again.deployment("d-1") == saved
    assert again.steps("d-1") == steps
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_newer_request_supersedes_the_waiting_one_of_its_application_only(state: State) -> None:
    running = deployment("d-0", status=Status.DOING)
    state.save(running)
    for each in (deployment("d-1"), deployment("d-2", "db")):
        assert state.request(each) == []
    assert state.request(deployment("d-3")) == ["d-1"]
    assert state.deployment("d-1").outcome is Outcome.SUPERSEDED
    assert [each.id for each in state.unfinished()] == ["d-0", "d-2", "d-3"]


def test_unfinished_has_the_interrupted_one_first(state: State) -> None:
    state.request(deployment("d-1", "other"))
    state.save(deployment("d-2", status=Status.UNDOING))
    assert [each.id for each in state.unfinished()] == ["d-2", "d-1"]


def test_attempts_and_serial(state: State) -> None:
    state.save(deployment("d-1"))
    other = dataclasses.replace(deployment("d-2").revision, identity="id-2", serial=9)
    state.save(deployment("d-2", revision=other))
    state.save(deployment("d-3"))
    assert [each.id for each in state.attempts("web", "id-1")] == ["d-3", "d-1"]
    assert state.highest_serial("web") == 9
    assert state.highest_serial("nothing") == 0


def test_unknown_deployment_is_said(state: State) -> None:
    with pytest.raises(NotFound) as caught:
        state.deployment("d-NOPE")
    assert "d-NOPE" in caught.value.message


def test_quarantine_is_per_application_and_lifted(state: State) -> None:
    entry = Quarantined("web", "ab", "1.0", 5.0, "it was bad", "d-1")
    state.quarantine(entry)
    assert state.quarantined("web") == [entry]
    assert state.quarantined("db") == []
    state.lift("web", "ab")
    assert state.quarantined("web") == []


def test_hold_expires(state: State) -> None:
    now = time.time()
    state.save_hold(Hold("audit", "anna", now, now + 60))
    held = state.hold()
    assert held is not None
    assert held.reason == "audit"
    state.save_hold(Hold("audit", "anna", now - 60, now - 1))
    assert state.hold() is None
    state.save_hold(Hold("for good", "anna", now, None))
    assert state.hold() is not None
    state.save_hold(None)
    assert state.hold() is None


def test_failing_transaction_changes_nothing(state: State, tmp_path: Path) -> None:
    state.save(deployment("d-1"))
    changed = deployment("d-1", status=Status.DOING)
    bad = Step(StepName.FETCH, Status.DONE, "not a number", note=None)  # type: ignore[arg-type]
    with pytest.raises(AgentError):
        state.save(changed, [bad])
    assert state.deployment("d-1").status is Status.PENDING


def test_locked_file_is_no_damaged_one(state: State, tmp_path: Path) -> None:
    state.rows("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AgentError) as caught:
        state.save(deployment("d-1"))
    other.close()
    assert caught.value.code is Code.STATE_IN_USE
    assert "mv " not in caught.value.remedy
    state.save(deployment("d-1"))


@pytest.mark.parametrize(
    "content",
    [b"this is no database at all, only some text" * 10, b"SQLite format 3\0" + b"x" * 500],
)
def test_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(AgentError) as caught:
        State(path)
    assert caught.value.code is Code.STATE_DAMAGED
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_newer_level_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    State(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 41")
    connection.close()
    with pytest.raises(AgentError) as caught:
        State(path)
    assert caught.value.code is Code.STATE_TOO_NEW


def test_forgotten_deployments_take_their_steps_with_them(state: State) -> None:
    state.save(deployment("d-1"), [Step(StepName.FETCH, Status.DONE, 1.0)])
    state.save(deployment("d-2"))
    state.forget(["d-1"])
    assert [each.id for each in state.deployments()] == ["d-2"]
    assert state.steps("d-1") == []
