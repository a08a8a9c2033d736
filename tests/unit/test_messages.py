"""What the journal is told: ids, their texts in the catalogue, and the fields of a failure."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.formats.loglines import in_order
from agent.model.deployment import Deployment, Revision, Status, StepName, Trigger
from agent.model.errors import AgentError, Code
from agent.model.messages import Message
from agent.record import Record
from agent.store.state import State
from agent.system.deployment_log import DeploymentLog

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "systemd" / "deploy-agent.catalog"
FIELDS = {
    "DEPLOYMENT_ID",
    "APPLICATION",
    "REVISION_VERSION",
    "STEP",
    "FAILURE_CODE",
    "FAILURE_WHERE",
    "FAILURE_NEXT",
}


def test_every_message_has_its_text() -> None:
    text = CATALOGUE.read_text()
    found = re.findall(r"^# ([A-Z_]+)\n-- ([0-9a-f]{32})\nSubject: .+$", text, re.MULTILINE)
    assert found == [(each.name, each.value) for each in Message]
    texts = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert set(re.findall(r"@(\w+)@", texts)) <= FIELDS
    assert max(map(len, text.splitlines())) <= 110


def test_every_message_is_documented() -> None:
    page = (ROOT / "docs" / "journal.md").read_text()
    found = re.findall(r"^\| `([A-Z_]+)` \| `([0-9a-f]{32})` \|", page, re.MULTILINE)
    assert found == [(each.name, each.value) for each in Message]


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="needs journalctl")
def test_catalogue_is_read_by_journalctl(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(CATALOGUE, folder)
    root = f"--root={tmp_path}"
    done = subprocess.run(
        ["journalctl", root, "--update-catalog"], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    listed = subprocess.run(
        ["journalctl", root, "--list-catalog"], check=True, capture_output=True, text=True
    )
    assert sorted(line.split()[0] for line in listed.stdout.splitlines()) == sorted(Message)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    state = State(tmp_path / "state.db")
    deployment = Deployment(
        id="d-1",
        revision=Revision("shop", "default", "1.0", "/srv/shop.zip"),
        release="d-1",
        trigger=Trigger.OPERATOR,
        requested_by="root",
        status=Status.DOING,
        created_at=1.0,
    )
    log = DeploymentLog(tmp_path / "log")
    return Record(state, deployment, log=log, on_change=lambda: None)


def _told(records: list[logging.LogRecord]) -> list[dict[str, str]]:
    return [{"": each.getMessage(), **getattr(each, "fields", {})} for each in records]


def test_failure_is_one_entry_that_explains_itself(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record.begin(StepName.START)
    record.fail(
        AgentError(
            "cannot start shop.service: it failed",
            code=Code.UNIT_FAILED,
            details=("one", "two"),
            remedy="Read its log",
        ),
        StepName.START,
    )
    begun, failed = _told(caplog.records)
    known = {"DEPLOYMENT_ID": "d-1", "APPLICATION": "shop", "REVISION_VERSION": "1.0"}
    assert begun == {
        "": "d-1: start begins",
        **known,
        "STEP": "start",
        "MESSAGE_ID": Message.STEP_BEGUN,
    }
    text = "d-1: start failed: cannot start shop.service: it failed\n  one\n  two\n"
    assert failed == {
        "": f"{text}  next: Read its log",
        **known,
        "STEP": "start",
        "MESSAGE_ID": Message.UNIT_FAILED,
        "FAILURE_CODE": "unit-failed",
        "FAILURE_WHERE": "step start",
        "FAILURE_MESSAGE": "cannot start shop.service: it failed",
        "FAILURE_EVIDENCE": "one\ntwo",
        "FAILURE_NEXT": "Read its log",
        "OBJECT_SYSTEMD_UNIT": "shop.service",
    }
    assert caplog.records[1].levelno == logging.ERROR


def test_failure_of_a_hook_names_its_lifecycle_event(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    error = AgentError(
        "cannot run scripts/a.sh: exit code 1",
        code=Code.HOOK_FAILED,
        where="AfterInstall scripts/a.sh",
    )
    record.fail(error, StepName.AFTER_INSTALL)
    (failed,) = _told(caplog.records)
    assert failed["LIFECYCLE_EVENT"] == "AfterInstall"
    assert failed["MESSAGE_ID"] == Message.HOOK_FAILED


def test_revision_that_is_known_better_is_told(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record.change(revision=Revision("shop", "default", "1.0.3", "/srv/shop.zip"))
    record.end_step(StepName.VERIFY, 0.1, "a note")
    (done,) = _told(caplog.records)
    assert done["REVISION_VERSION"] == "1.0.3"
    assert done[""] == "d-1: verify: done in 0.10 s: a note"


def test_lines_are_in_the_order_of_their_times() -> None:
    later, first = "2026-01-01T00:00:02.000Z agent: b", "2026-01-01T00:00:01.999Z x [stdout] a"
    same = "2026-01-01T00:00:02.000Z agent: c"
    assert in_order([later, "  more of b", first, same]) == [first, later, "  more of b", same]
