"""The lifecycle as a table: every row fails, hangs, and is killed in do and in undo.

The agent is a real process that is really killed; what is asserted is what a person would look
at: the outcome, what is installed (whole-tree fingerprint), and which version serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lifecycle import AFTERWARDS, LIFECYCLE, Crash, Row
from agent.model.deployment import StepName
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.trees import without_folder_times
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

ROWS = [pytest.param(row, id=row.name.value) for row in LIFECYCLE]
UNDO_ROWS = [pytest.param(row, id=row.name.value) for row in LIFECYCLE if row.undo is not None]
LATE_ROWS = [pytest.param(row, id=row.name.value) for row in AFTERWARDS]


@pytest.fixture
def host(state_dir: Path) -> Iterator[AgentHost]:
    """A host on which version 1 serves; the agent is stopped."""
    host = AgentHost(state_dir)
    try:
        host.start()
        host.deploy_good(make_bundle(state_dir, "1"))
        assert host.serving() == "1"
        host.stop()
        yield host
    finally:
        host.clear()


def fault(row: Row | str, at: str, how: str) -> dict[str, str]:
    return {"row": row if isinstance(row, str) else row.name.value, "at": at, "how": how}


def steps_of(view: dict) -> dict[str, str]:
    return {step["name"]: step["status"] for step in view["steps"]}


def assert_undone(host: AgentHost, before: object, row: Row, outcome: str) -> None:
    view = host.deployment()
    assert view["outcome"] == outcome, view["failure"]
    assert host.files() == before
    assert host.serving() == "1"
    statuses = steps_of(view)
    for other in LIFECYCLE:
        if other.undo is not None and LIFECYCLE.index(other) <= LIFECYCLE.index(row):
            assert statuses[other.name] == "undone", other.name
    assert not list((host.state_dir / "releases").glob(f"{view['id']}*"))
    status = host.ask("GET", "/v1/status")["applications"][0]
    assert status["current"]["version"] == "1"


def assert_serves_2(host: AgentHost) -> None:
    view = host.deployment()
    assert view["outcome"] == "succeeded", view["failure"]
    assert host.serving() == "2"
    assert (host.base / "app" / "version").read_text() == "2\n"
    assert not (host.base / "app" / "only-in-1").exists()
    status = host.ask("GET", "/v1/status")["applications"][0]
    assert (status["current"]["version"], status["previous"]["version"]) == ("2", "1")


def undone_outcome(row: Row) -> str:
    return "rolled_back" if row.touches else "failed"


@pytest.mark.parametrize("how", ["fail", "hang"])
@pytest.mark.parametrize("row", ROWS)
def test_row_that_fails_or_hangs_is_undone(host: AgentHost, row: Row, how: str) -> None:
    before = host.files()
    host.start(fault(row, "do-after", how))
    view = host.deploy(make_bundle(host.base, "2"))
    assert_undone(host, before, row, undone_outcome(row))
    assert view["failure"]["code"] == ("internal" if how == "fail" else "step-timeout")
    assert row.name in view["failure"]["where"] or row.name in view["failure"]["message"]


@pytest.mark.parametrize("at", ["do-before", "do-after"])
@pytest.mark.parametrize("row", ROWS)
def test_kill_in_do_is_resumed_or_undone(host: AgentHost, row: Row, at: str) -> None:
    before = host.files()
    host.start(fault(row, at, "kill"))
    host.request(make_bundle(host.base, "2"))
    assert host.wait_for_end() == -9
    host.start()
    view = host.wait_for_outcome()
    assert view["starts"] == 2
    if row.crash is Crash.RESUME:
        assert_serves_2(host)
    else:
        assert_undone(host, before, row, "rolled_back")
        assert view["failure"]["code"] == "agent-stopped"
        assert row.name in view["failure"]["where"]


def test_kill_in_the_undo_of_an_early_row_is_still_a_rollback(host: AgentHost) -> None:
    """Seen with random kills: the host was touched, and it was said to have been left alone."""
    before = host.files()
    host.start(fault("start", "do-after", "fail"), fault("unpack", "undo-before", "kill"))
    host.request(make_bundle(host.base, "2"))
    assert host.wait_for_end() == -9
    host.start()
    host.wait_for_outcome()
    assert_undone(host, before, LIFECYCLE[9], "rolled_back")


@pytest.mark.parametrize("at", ["undo-before", "undo-after"])
@pytest.mark.parametrize("row", UNDO_ROWS)
def test_kill_in_do_and_again_in_undo(host: AgentHost, row: Row, at: str) -> None:
    before = host.files()
    # a row that resumes after a crash gets its undo from a later row's failure
    how = "kill" if row.crash is Crash.UNDO else "fail"
    host.start(fault(row, "do-after", how), fault(row, at, "kill"))
    host.request(make_bundle(host.base, "2"))
    assert host.wait_for_end() == -9
    host.start(fault(row, at, "kill"))
    assert host.wait_for_end() == -9
    host.start()
    host.wait_for_outcome()
    assert_undone(host, before, row, undone_outcome(row))


@pytest.mark.parametrize("row", UNDO_ROWS)
def test_failing_undo_is_recorded_and_the_rest_still_runs(host: AgentHost, row: Row) -> None:
    before = host.files()
    host.start(fault(row, "do-after", "fail"), fault(row, "undo-after", "fail"))
    view = host.deploy(make_bundle(host.base, "2"))
    assert view["outcome"] == "inconsistent"
    statuses = steps_of(view)
    assert statuses.pop(row.name) == "failed"
    undone = [name for name, status in statuses.items() if status == "undone"]
    rows_before = LIFECYCLE[: LIFECYCLE.index(row)]
    assert set(undone) == {other.name for other in rows_before if other.undo is not None}
    assert host.files() == before
    assert host.serving() == "1"


@pytest.mark.parametrize("row", ROWS)
def test_abort_in_each_row_leaves_the_old_one(host: AgentHost, row: Row) -> None:
    before = host.files()
    host.start(fault(row, "do-after", "wait"))
    deployment_id = host.request(make_bundle(host.base, "2"))
    wait_until(lambda: host.deployment()["step"] == row.name, 20)
    host.ask("POST", f"/v1/deployments/{deployment_id}/abort", {"now": True})
    host.wait_for_outcome(deployment_id)
    assert_undone(host, before, row, "aborted")


@pytest.mark.parametrize("row", LATE_ROWS)
@pytest.mark.parametrize("how", ["fail", "hang"])
def test_what_fails_after_the_commit_changes_no_outcome(
    host: AgentHost, row: Row, how: str
) -> None:
    host.start(fault(row, "do-before", how))
    host.deploy(make_bundle(host.base, "2"))
    assert_serves_2(host)
    assert steps_of(host.deployment())[row.name] == "failed"


@pytest.mark.parametrize("row", LATE_ROWS)
def test_kill_after_the_commit_is_finished(host: AgentHost, row: Row) -> None:
    host.start(fault(row, "do-before", "kill"))
    host.request(make_bundle(host.base, "2"))
    assert host.wait_for_end() == -9
    host.start()
    host.wait_for_outcome()
    assert_serves_2(host)
    assert steps_of(host.deployment())[row.name] == "done"


def test_agent_that_dies_at_every_start_gives_up_and_undoes(host: AgentHost) -> None:
    before = host.files()
    host.start(fault(StepName.VALIDATE, "do-before", "kill"))
    host.request(make_bundle(host.base, "2"))
    for _ in range(5):
        assert host.wait_for_end() == -9
        host.start(fault(StepName.VALIDATE, "do-before", "kill"))
    view = host.wait_for_outcome()
    assert view["failure"]["code"] == "too-many-starts"
    assert_undone(host, before, LIFECYCLE[9], "rolled_back")


def test_undone_revision_is_quarantined_until_retry(host: AgentHost) -> None:
    host.start(fault(StepName.START, "do-after", "fail"))
    bundle = make_bundle(host.base, "2")
    host.deploy(bundle)
    host.stop()
    host.start()
    refused = host.deploy(bundle)
    assert (refused["outcome"], refused["failure"]["code"]) == ("failed", "quarantined")
    assert "retry" in refused["failure"]["next"]
    host.ask("POST", "/v1/retry", {"application": "service"})
    host.wait_for_outcome()
    assert_serves_2(host)


@pytest.mark.parametrize("event", ["BeforeInstall", "ApplicationStop"])
def test_hook_that_removes_the_old_files_and_fails(host: AgentHost, event: str) -> None:
    """A script that clears the folder first is common; what it took is there again."""
    remove = f"#!/bin/sh\nrm -rf {host.base}/app\nexit 1\n"
    of_old = {event: remove} if event == "ApplicationStop" else {}
    of_new = {event: remove} if event == "BeforeInstall" else {}
    host.config.write_text(host.config.read_text() + "stop_failure: fail\n")
    host.start()
    host.deploy_good(make_bundle(host.base, "2", hooks=of_old))
    before = without_folder_times(host.files())
    view = host.deploy(make_bundle(host.base, "3", hooks=of_new))
    assert view["outcome"] == "rolled_back", view["failure"]
    assert event in view["failure"]["where"]
    assert without_folder_times(host.files()) == before
    assert host.serving() == "2"


def test_stop_and_start_of_the_agent_between_rows_goes_on(host: AgentHost) -> None:
    """SIGTERM is no failure: the row that runs ends, and the next start goes on after it."""
    gate = host.base / "gate"
    hook = f"#!/bin/sh\ntouch {gate}.seen\nwhile [ ! -e {gate} ]; do sleep 0.02; done\n"
    host.start()
    host.request(make_bundle(host.base, "2", hooks={"BeforeInstall": hook}))
    host.wait_for_file(Path(f"{gate}.seen"))
    host.terminate()
    gate.touch()
    assert host.wait_for_end() == 0
    host.start()
    host.wait_for_outcome()
    assert_serves_2(host)
    assert host.events().count("AfterInstall 2") == 1
