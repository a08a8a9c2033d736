"""Where the agent cannot manage units, a revision that names one is refused untouched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.system import systemd
from tests.agent_host import AgentHost
from tests.bundles import make_bundle

pytestmark = pytest.mark.timeout(60)

UNIT = "services:\n  - unit: no-such-unit-of-deploy-agent.service\n"


@pytest.mark.slow
def test_a_unit_without_systemd(state_dir: Path) -> None:
    host = AgentHost(state_dir)
    host.start()
    try:
        host.deploy_good(make_bundle(state_dir, "1"))
        before, events = host.files(), host.events()
        view = host.deploy(make_bundle(state_dir, "2", extra=UNIT))
        assert view["outcome"] == "failed"
        assert view["failure"]["code"] == "plan-refused"
        is_managed = systemd.is_booted() and os.geteuid() == 0
        words = "there is no" if is_managed else "cannot manage"
        assert f"{words} no-such-unit-of-deploy-agent.service" in view["failure"]["evidence"][0]
        assert (host.files(), host.events(), host.serving()) == (before, events, "1")
    finally:
        host.clear()
