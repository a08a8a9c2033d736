"""`agentctl doctor` on real hosts of both Debians, with the .deb installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.host.bundles import Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def examine(host: DebHost, *, user: str = "") -> tuple[int, dict[str, Any]]:
    done = host.agentctl("doctor", "--json", user=user)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def said(body: dict[str, Any], subject: str) -> list[str]:
    return [
        f"{each['level']}: {each['text']} → {each['remedy']}"
        for each in body["findings"]
        if each["subject"] == subject
    ]


def test_a_host_that_is_well(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1"))
    code, body = examine(deb_host)
    assert (code, body["problems"], body["unknown"]) == (0, 0, 0), body["findings"]
    assert "ok: deploy-agent.service is active (running) → " in said(body, "systemd")
    assert "ok: the agent's entries can be read → " in said(body, "journal")
    assert said(body, "dbus") == ["ok: the system bus answers → "]
    assert said(body, "applications") == ["ok: web 1 is deployed → "]
    assert said(body, "accounts")[0].startswith("ok: ")
    shown = deb_host.agentctl("doctor").stdout
    assert "ok       agent: version " in shown


def test_a_dead_agent(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1"))
    deb_host.host.run("systemctl", "stop", "deploy-agent")
    deb_host.host.run("systemctl", "disable", "--quiet", "deploy-agent")
    code, body = examine(deb_host)
    assert code == 1
    assert said(body, "agent")[0].startswith("problem: cannot reach deploy-agent")
    unit, boot = said(body, "systemd")[1:]
    assert unit.startswith("problem: deploy-agent.service is inactive (dead)")
    assert boot.startswith("warning: deploy-agent.service is disabled")
    assert "systemctl enable deploy-agent.service" in boot
    assert said(body, "applications") == ["ok: web 1 is deployed → "]


def test_an_agent_that_systemd_had_to_restart(deb_host: DebHost) -> None:
    pid = deb_host.agent_pid()
    deb_host.host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "deploy-agent")
    wait_until(lambda: deb_host.agent_pid() not in (0, pid), 20.0)
    deb_host.wait_for_agent()
    _, body = examine(deb_host)
    assert any("had to restart deploy-agent.service once" in line for line in said(body, "systemd"))


def test_without_a_bus(deb_host: DebHost) -> None:
    deb_host.host.run("systemctl", "stop", "dbus.socket", "dbus.service")
    code, body = examine(deb_host)
    assert code == 0, body["findings"]
    assert said(body, "dbus")[0].startswith("warning: nothing answers at")


def test_another_user(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1"))
    code, body = examine(deb_host, user="www-data")
    assert code == 0, body["findings"]
    assert said(body, "agent")[0].startswith("ok: version ")
    assert "ok: deploy-agent.service is active (running) → " in said(body, "systemd")
    for subject in ("state", "applications", "journal"):
        assert said(body, subject)[-1].startswith("unknown: "), said(body, subject)


def test_an_upgrade_that_did_not_restart_the_agent(deb_host: DebHost) -> None:
    pid = deb_host.agent_pid()
    version = "/usr/share/deploy-agent/agent/__init__.py"
    deb_host.host.run("sed", "-i", "s/__version__ = .*/__version__ = '99.0'/", version)
    _, body = examine(deb_host)
    assert deb_host.agent_pid() == pid
    assert said(body, "agent")[0].startswith("warning: version ")
    assert "99.0 is installed" in said(body, "agent")[0]
