"""What the next start of the agent reads of hooks: all of it comes back, in this boot only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from agent.hooks import record
from agent.hooks.record import HookRecord, HookRun

RUN = HookRun(
    number=0,
    event="AfterInstall",
    location="scripts/a.sh",
    since=5,
    ordinal=1,
    began=4,
    tries=2,
    outlives=True,
)
EMPTY = HookRecord()


def full() -> HookRecord:
    known = EMPTY.enter("after-install").begin(RUN).end(((7, 8),), succeeded=True)
    known = known.begin(dataclasses.replace(RUN, ordinal=2))
    known = known.with_running(processes=((9, 10),), cursor="s=1;i=2", kept=33)
    return dataclasses.replace(known, parted_in="after-install")


def test_everything_comes_back(tmp_path: Path) -> None:
    record.save(tmp_path, full())
    assert record.load(tmp_path) == full()


def test_nothing_of_another_boot_comes_back(tmp_path: Path) -> None:
    record.save(tmp_path, full())
    path = tmp_path / "hooks.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"boot": "another"}))
    assert record.load(tmp_path) == EMPTY


def test_a_record_of_an_older_agent_is_read(tmp_path: Path) -> None:
    record.save(tmp_path, EMPTY)
    boot = json.loads((tmp_path / "hooks.json").read_text())["boot"]
    run = {"number": 1, "event": "E", "location": "x", "since": 3, "processes": [[1, 2]]}
    fields = {"boot": boot, "number": 1, "running": run, "left": []}
    (tmp_path / "hooks.json").write_text(json.dumps(fields))
    found = record.load(tmp_path)
    assert found.running == HookRun(1, "E", "x", 3, ((1, 2),))
    assert found.running is not None
    assert not found.running.outlives


def test_runs_are_numbered_over_all_passes() -> None:
    known = EMPTY.enter("stop").begin(RUN).end((), succeeded=True)
    known = known.enter("start").begin(RUN)
    assert known.running is not None
    assert known.running.number == 2


def test_what_has_succeeded_counts_in_its_pass_only() -> None:
    known = EMPTY.enter("stop").begin(RUN)
    assert known.end(()).completed == ()
    known = known.end((), succeeded=True)
    assert known.completed == (("AfterInstall", 1),)
    assert known.enter("start").completed == ()


def test_what_was_left_is_kept_until_it_is_ended() -> None:
    known = EMPTY.begin(RUN).end(((1, 2),), succeeded=True).begin(RUN).end((), succeeded=True)
    assert [run.processes for run in known.left] == [((1, 2),)]
    assert known.enter("start").left == known.left
    assert known.without(1).left == ()
