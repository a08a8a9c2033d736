"""What is wrong with a unit, and whether it has to be restarted."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.system.systemd import UnitState
from agent.units import control, failure, record
from agent.units.control import Choice
from agent.units.record import Before, Record, Scene, Started

UP = UnitState("a.service", "simple", "loaded", "active", "running", invocation="1")
STARTED = Started("1", 0, 100.0)


def unit(**changes: object) -> UnitState:
    fields = {name: getattr(UP, name) for name in UP.__dataclass_fields__}
    return UnitState(**{**fields, **changes})  # type: ignore[arg-type]


AGAIN = unit(
    active="activating", sub="auto-restart", result="exit-code", exit_kind=1, exit_status=3
)


@pytest.mark.parametrize(
    ("state", "old", "choice"),
    [
        (unit(active="inactive"), {"1"}, Choice.START),
        (unit(active="failed"), {"1"}, Choice.START),
        (UP, {"1"}, Choice.RESTART),
        (UP, {"0"}, Choice.LEAVE),
        (UP, set(), Choice.LEAVE),
        (unit(active="reloading"), set(), Choice.LEAVE),
        (unit(active="activating"), {"1"}, Choice.RESTART),
        (unit(active="activating"), set(), Choice.START),  # which waits for it
        (unit(active="deactivating"), {"1"}, Choice.START),
    ],
)
def test_choose_start(state: UnitState, old: set[str], choice: Choice) -> None:
    assert control.choose_start(state, old) is choice


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (UP, ""),
        (unit(active="reloading"), ""),
        (unit(kind="oneshot", active="inactive", sub="dead"), ""),
        (unit(kind="oneshot", active="active", sub="exited"), ""),
        (unit(invocation="2"), "restarted by somebody else"),
        (AGAIN, "it ended with exit code 3, within 2.1 s of its start"),
        (unit(invocation="2", restarts=1), "and systemd started it again"),
        (
            unit(active="failed", result="exit-code", exit_kind=1, exit_status=3, restarts=4),
            "it ended with exit code 3, 5 times in 2.1 s (crash loop)",
        ),
        (unit(active="failed", result="signal", exit_kind=2, exit_status=9), "ended by SIGKILL"),
        (unit(active="failed", result="exit-code", exit_kind=1, exit_status=203), "executed"),
        (unit(active="failed", result="timeout"), "longer than its unit file allows"),
        (unit(active="activating", sub="start"), "it is still starting after 2.1 s (start)"),
        (unit(active="inactive", sub="dead", exit_kind=1), "it ended with exit code 0"),
        (unit(active="inactive", sub="dead", condition="no"), "Condition"),
        (unit(active="inactive", sub="dead", condition="yes"), "stopped by somebody else"),
        (unit(load="not-found", active="inactive"), "no such unit any more"),
    ],
)
def test_find_trouble(state: UnitState, words: str) -> None:
    found = failure.find_trouble(state, STARTED, 102.1)
    assert words in found
    assert bool(found) is bool(words)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (UP, ""),
        (unit(active="inactive", sub="dead"), "a.service is inactive (dead)"),
        (AGAIN, "a.service is activating (auto-restart): it ended with exit code 3"),
        (unit(load="not-found"), ""),
        (unit(load="not-found", active="inactive"), "there is no a.service on this host"),
    ],
)
def test_find_fault(state: UnitState, text: str) -> None:
    assert failure.find_fault(state) == text


def test_record_outlives(tmp_path: Path) -> None:
    assert record.load(tmp_path) is None
    saved = Record(
        before={"a.service": Before("active", "running", "enabled", "1")},
        reload_due=True,
        scene=Scene({"a.service": "0"}, "s=0"),
        started={"a.service": STARTED},
        boot="b",
        cursor="s=1",
    )
    record.save(tmp_path, saved)
    assert record.load(tmp_path) == saved
