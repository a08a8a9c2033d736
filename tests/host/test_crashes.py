"""SIGKILL of the agent, and the host stopped hard, in every row of the lifecycle table."""

from __future__ import annotations

import pytest

from agent.lifecycle import AFTERWARDS, LIFECYCLE, Crash, Row
from tests.host.bundles import Web
from tests.host.deb_host import DebHost

pytestmark = pytest.mark.slow

ROWS = [pytest.param(row, id=row.name.value) for row in (*LIFECYCLE, *AFTERWARDS)]


@pytest.mark.parametrize("row", ROWS)
def test_agent_killed_in_a_row(serving_host: DebHost, row: Row, by: str) -> None:
    before = serving_host.installed()
    serving_host.put_fault(row.name, "do-after", "kill")
    deployment_id = serving_host.request(Web("2", by=by))
    serving_host.wait_for_outcome(deployment_id)
    assert_resumed_or_undone(serving_host, row, before)


@pytest.mark.parametrize("row", ROWS)
def test_host_stopped_hard_in_a_row(serving_host: DebHost, row: Row, by: str) -> None:
    before = serving_host.installed()
    serving_host.put_fault(row.name, "do-after", "power-cut")
    deployment_id = serving_host.request(Web("2", by=by))
    serving_host.host.wait_for_end()
    serving_host.host.boot()
    serving_host.wait_for_outcome(deployment_id)
    assert_resumed_or_undone(serving_host, row, before)


def assert_resumed_or_undone(host: DebHost, row: Row, before: dict[str, str]) -> None:
    """What the row's crash policy promises."""
    view = host.deployment()
    assert view["starts"] == 2
    if row.crash is Crash.RESUME:
        assert view["outcome"] == "succeeded", view["failure"]
        host.wait_until_serving("2")
        assert host.agentctl("status").stdout.startswith("web  2")
    else:
        assert view["outcome"] == "rolled_back"
        assert view["failure"]["code"] == "agent-stopped"
        assert row.name in view["failure"]["where"]
        assert host.installed() == before
        host.wait_until_serving("1")
    assert host.show("web.service", "UnitFileState") == "enabled"
