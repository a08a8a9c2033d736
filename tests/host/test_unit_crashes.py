"""SIGKILL and power cuts in the steps that touch units, with `services: unit`."""

from __future__ import annotations

import pytest

from agent.lifecycle import LIFECYCLE, Row
from agent.model.deployment import StepName
from tests.host.bundles import Web
from tests.host.deb_host import DebHost
from tests.host.test_crashes import assert_resumed_or_undone

pytestmark = pytest.mark.slow

TOUCHING = (StepName.STOP, StepName.INSTALL, StepName.START, StepName.VALIDATE)
ROWS = [pytest.param(row, id=row.name.value) for row in LIFECYCLE if row.name in TOUCHING]


@pytest.fixture
def by() -> str:
    return "unit"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("at", ["do-before", "do-after"])
def test_agent_killed_in_a_row(serving_host: DebHost, row: Row, at: str, by: str) -> None:
    before = serving_host.installed()
    serving_host.put_fault(row.name, at, "kill")
    deployment_id = serving_host.request(Web("2", by=by))
    serving_host.wait_for_outcome(deployment_id)
    assert_resumed_or_undone(serving_host, row, before)
    assert_clean(serving_host)


@pytest.mark.parametrize("row", ROWS)
def test_host_stopped_hard_in_a_row(serving_host: DebHost, row: Row, by: str) -> None:
    before = serving_host.installed()
    serving_host.put_fault(row.name, "do-after", "power-cut")
    deployment_id = serving_host.request(Web("2", by=by))
    serving_host.host.wait_for_end()
    serving_host.host.boot()
    serving_host.wait_for_outcome(deployment_id)
    assert_resumed_or_undone(serving_host, row, before)
    assert_clean(serving_host)


def assert_clean(host: DebHost) -> None:
    """What systemd has read is what is on the disk, and nothing failed."""
    assert host.show("web.service", "NeedDaemonReload") == "no"
    version = host.deployment()["version"] if host.serving() == "2" else "1"
    assert host.show("web.service", "Description") == f"web {version}"
    assert host.host.output("systemctl", "--failed", "--plain", "--no-legend") == ""
