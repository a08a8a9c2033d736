"""A hook's run-once under systemd, with an agent that ends and comes back meanwhile."""

from __future__ import annotations

import pytest

from tests.host import consul_on_host
from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

RESULT = "deploy/run-once/web/default/migrate/{version}/result"
_COMMAND = """echo begun >>/tmp/begun
until [ -e /tmp/go ]; do sleep 0.05; done
echo migrated as $(id -un)"""
_HOOK = f"#!/bin/sh\nexec run-once migrate --lease 10 -- sh -c '{_COMMAND}'\n"


def begun(host: DebHost) -> int:
    path = host.host.path("/tmp/begun")
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_command_outlives_a_restart_of_the_agent(deb_host: DebHost) -> None:
    consul_on_host.start(deb_host)
    hooks = {"AfterInstall": Hook(_HOOK, timeout=60)}
    deployment_id = deb_host.request(Web("1", hooks=hooks))
    wait_until(lambda: begun(deb_host) == 1, 20.0)
    deb_host.host.run("systemctl", "restart", "deploy-agent")
    deb_host.wait_for_agent()
    deb_host.kill_agent()
    deb_host.host.write("/tmp/go", "")
    view = deb_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "succeeded", view["failure"]
    assert begun(deb_host) == 1
    result = consul_on_host.read_json(deb_host, RESULT.format(version="1"))
    assert (result["exit_code"], result["lines"]) == (0, ["migrated as root"])
    assert result["deployment"] == deployment_id
    # a process of another unit of the host is none of a hook, whoever its user is
    asked = deb_host.host.output(
        *("curl", "--silent", "--unix-socket", "/run/deploy-agent/agent.sock"),
        *("--json", '{"holder": "x", "lease_seconds": 10}'),
        "http://localhost/v1/run-once/migrate/begin",
    )
    assert "not-permitted" in asked


def test_user_of_the_hook_reaches_the_agent(deb_host: DebHost) -> None:
    consul_on_host.start(deb_host)
    deb_host.host.write("/tmp/go", "")
    deb_host.host.write("/tmp/begun", "", mode=0o666)
    hooks = {"AfterInstall": Hook(_HOOK, timeout=60, runas="nobody")}
    deb_host.deploy_good(Web("1", hooks=hooks))
    result = consul_on_host.read_json(deb_host, RESULT.format(version="1"))
    assert result["lines"] == ["migrated as nobody"]
