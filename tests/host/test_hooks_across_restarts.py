"""A hook is a service of PID 1: the agent may end and come back, and nothing is lost or killed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

_SECONDS = 20.0
# Goes on when the test says so; counts how often it was begun. Lines come before and after.
_WAITING = """#!/bin/bash
echo begun >>/tmp/begun
for number in {1..300}; do echo "before $number"; done
until [ -e /tmp/go ]; do sleep 0.05; done
for number in {1..300}; do echo "after $number"; done
"""
AFTER_INSTALL = "AfterInstall"


def begun(host: DebHost) -> int:
    """How often the waiting hook was begun."""
    path = host.host.path("/tmp/begun")
    return len(path.read_text().splitlines()) if path.exists() else 0


def request_waiting(host: DebHost, text: str = _WAITING, *, timeout: int = 60) -> str:
    """Deploy a revision whose hook waits; returns when it does."""
    hooks = {AFTER_INSTALL: Hook(text, timeout=timeout)}
    deployment_id = host.request(Web("2", hooks=hooks))
    wait_until(lambda: begun(host) == 1, _SECONDS)
    return deployment_id


def go(host: DebHost) -> None:
    host.host.write("/tmp/go", "")


def log_of(host: DebHost, deployment_id: str) -> str:
    return host.host.path(f"/var/lib/deploy-agent/deployments/{deployment_id}/log").read_text()


def assert_every_line_once(host: DebHost, deployment_id: str) -> None:
    lines = [line for line in log_of(host, deployment_id).splitlines() if "[output]" in line]
    said = [line.partition("[output] ")[2] for line in lines if AFTER_INSTALL in line]
    expected = [f"{word} {number}" for word in ("before", "after") for number in range(1, 301)]
    assert said == expected


def assert_succeeded_once(host: DebHost, deployment_id: str) -> dict[str, Any]:
    view = host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "succeeded", view["failure"]
    assert begun(host) == 1
    assert host.serving() == "2"
    assert not units(host)
    return view


def units(host: DebHost) -> list[str]:
    """Units of hooks that are there, running or not."""
    asked = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "deploy-hook-*.service")
    return host.host.output(*asked).splitlines()


def test_restart_in_a_hook(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    began = time.monotonic()
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    assert time.monotonic() - began < 5  # `shutdown` would be 20 s
    serving_host.wait_for_agent()
    assert serving_host.deployment(deployment_id)["status"] == "doing"
    go(serving_host)
    view = assert_succeeded_once(serving_host, deployment_id)
    assert view["starts"] == 1  # asked for, and so no start that is limited
    assert_every_line_once(serving_host, deployment_id)


def test_upgrade_in_a_hook(serving_host: DebHost, debs: dict[str, Any]) -> None:
    deployment_id = request_waiting(serving_host)
    serving_host.host.install(debs["newer"])
    serving_host.wait_for_agent()
    go(serving_host)
    assert_succeeded_once(serving_host, deployment_id)
    assert_every_line_once(serving_host, deployment_id)


def test_hook_that_ends_while_the_agent_is_stopped(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    serving_host.host.run("systemctl", "stop", "deploy-agent")
    go(serving_host)
    wait_until(lambda: "exited" in "".join(units(serving_host)), _SECONDS)
    serving_host.host.run("systemctl", "start", "deploy-agent")
    serving_host.wait_for_agent()
    assert_succeeded_once(serving_host, deployment_id)
    assert_every_line_once(serving_host, deployment_id)


def test_agent_killed_in_a_hook(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    serving_host.kill_agent()
    go(serving_host)
    view = assert_succeeded_once(serving_host, deployment_id)
    assert view["starts"] == 2
    # clients of the agent that was killed
    assert not [
        each for each in serving_host.processes() if each.startswith(("systemd-run", "jour"))
    ]
    assert_every_line_once(serving_host, deployment_id)


def test_hook_that_fails_while_the_agent_is_stopped(serving_host: DebHost) -> None:
    before = serving_host.installed()
    deployment_id = request_waiting(serving_host, f"{_WAITING}\necho 'no more disk' >&2\nexit 7\n")
    serving_host.host.run("systemctl", "stop", "deploy-agent")
    go(serving_host)
    wait_until(lambda: "failed" in "".join(units(serving_host)), _SECONDS)
    serving_host.host.run("systemctl", "start", "deploy-agent")
    serving_host.wait_for_agent()
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "hook-failed"
    assert "exit code 7" in view["failure"]["message"]
    assert "output: no more disk" in view["failure"]["evidence"]
    assert begun(serving_host) == 1
    assert serving_host.installed() == before
    assert not units(serving_host)


def test_time_limit_while_the_agent_is_stopped(serving_host: DebHost) -> None:
    serving_host.configure("grace", "hooks: {grace: 500ms}\n")
    deaf = "#!/bin/bash\ntrap '' TERM\necho begun >/tmp/begun\nwhile :; do sleep 1; done\n"
    deployment_id = request_waiting(serving_host, deaf, timeout=2)
    serving_host.host.run("systemctl", "stop", "deploy-agent")
    wait_until(lambda: "failed" in "".join(units(serving_host)), _SECONDS)
    assert not [line for line in serving_host.processes() if AFTER_INSTALL in line]
    serving_host.host.run("systemctl", "start", "deploy-agent")
    serving_host.wait_for_agent()
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "hook-timeout"


def test_restart_in_the_undo(serving_host: DebHost) -> None:
    hooks = {
        AFTER_INSTALL: Hook("#!/bin/sh\nexit 1\n"),
        "ApplicationStop": Hook("#!/bin/sh\nexit 0\n"),
    }
    start = "#!/bin/bash\nsystemctl restart web\n[ ! -e /tmp/wait ] && exit\n" + _WAITING[12:]
    serving_host.deploy_good(Web("1.1", hooks={"ApplicationStart": Hook(start, timeout=60)}))
    serving_host.host.write("/tmp/wait", "")
    deployment_id = serving_host.request(Web("2", hooks=hooks))
    wait_until(lambda: begun(serving_host) == 1, _SECONDS)
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    serving_host.wait_for_agent()
    go(serving_host)
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert begun(serving_host) == 1
    assert serving_host.serving() == "1.1"


def test_reboot_in_a_hook_is_a_crash(serving_host: DebHost) -> None:
    before = serving_host.installed()
    deployment_id = request_waiting(serving_host)
    serving_host.host.cut_power()
    serving_host.host.boot()
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert serving_host.installed() == before
    serving_host.wait_until_serving("1")


def test_abort_now_ends_the_adopted_hook(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    serving_host.wait_for_agent()
    wait_until(lambda: serving_host.deployment()["step"] == "after-install", _SECONDS)
    # the agent answers before it goes on with the deployment, and says so
    abort = ["abort", deployment_id, "--now"]
    wait_until(lambda: serving_host.agentctl(*abort).returncode == 0, _SECONDS)
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "aborted"
    assert not [line for line in serving_host.processes() if AFTER_INSTALL in line]
    assert serving_host.serving() == "1"


def test_hook_that_asks_for_another_try(serving_host: DebHost) -> None:
    serving_host.configure("retry", "hooks: {retry: 200ms}\n")
    again = f"{_WAITING}\n[ -e /tmp/again ] && exit\ntouch /tmp/again\nexit 75\n"
    deployment_id = request_waiting(serving_host, again)
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    serving_host.wait_for_agent()
    go(serving_host)
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "succeeded", view["failure"]
    assert begun(serving_host) == 2


@pytest.mark.parametrize("signal_name", ["TERM", "KILL"])
def test_an_abort_is_not_forgotten(serving_host: DebHost, signal_name: str) -> None:
    deployment_id = request_waiting(serving_host)
    assert serving_host.agentctl("abort", deployment_id).returncode == 0
    if signal_name == "TERM":
        serving_host.host.run("systemctl", "restart", "deploy-agent")
        serving_host.wait_for_agent()
    else:
        serving_host.kill_agent()
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "aborted"
    assert view["failure"]["code"] == "aborted"
    assert not [line for line in serving_host.processes() if AFTER_INSTALL in line]
    assert serving_host.serving() == "1"


def test_shutdown_in_a_hook_is_not_its_failure(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    serving_host.host.power_off()
    serving_host.host.boot()
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "agent-stopped"
    serving_host.wait_until_serving("1")


def test_systemd_and_the_journal_are_restarted(serving_host: DebHost) -> None:
    deployment_id = request_waiting(serving_host)
    for argv in (("daemon-reexec",), ("restart", "systemd-journald"), ("daemon-reload",)):
        serving_host.host.run("systemctl", *argv)
    go(serving_host)
    assert_succeeded_once(serving_host, deployment_id)
    assert_every_line_once(serving_host, deployment_id)
