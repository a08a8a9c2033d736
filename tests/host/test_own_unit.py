"""The agent's own unit: ready, status line, watchdog, what it may do, and what it costs idle."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.model.messages import Message
from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1024  # in the kB of proc(5)
DROP_IN = "/etc/systemd/system/deploy-agent.service.d/test.conf"


def wait_for_status(host: DebHost, part: str) -> None:
    wait_until(lambda: part in host.show("deploy-agent", "StatusText"), 30.0)


def test_status_line_tells_what_the_agent_does(deb_host: DebHost) -> None:
    assert deb_host.show("deploy-agent", "Type") == "notify"
    wait_for_status(deb_host, "waiting to be asked")
    deb_host.host.run("mkdir", "-p", "/srv/drop/web")
    deb_host.configure("source", "sources: [{type: directory, path: /srv/drop}]\n")
    wait_for_status(deb_host, "waiting: directory /srv/drop: nothing desired")
    gate = Hook("#!/bin/sh\nwhile [ ! -e /run/gate ]; do sleep 0.1; done\n")
    bundle = Web("1", hooks={"AfterInstall": gate})
    deb_host.host.path("/srv/drop/web").joinpath(bundle.name).write_bytes(bundle.zipped())
    wait_for_status(deb_host, "deploying web 1: after-install, which began at ")
    deb_host.host.run("touch", "/run/gate")
    wait_for_status(deb_host, "waiting: web 1 is current, as desired")


def test_hanging_agent_is_started_anew(deb_host: DebHost) -> None:
    deb_host.host.write(DROP_IN, "[Service]\nWatchdogSec=2s\n")
    deb_host.host.run("systemctl", "daemon-reload")
    deb_host.host.run("systemctl", "restart", "deploy-agent")
    deb_host.wait_for_agent()
    pid = deb_host.agent_pid()
    fed: set[str] = set()

    def was_fed_often() -> bool:
        fed.add(deb_host.show("deploy-agent", "WatchdogTimestampMonotonic"))
        return len(fed) > 5

    wait_until(was_fed_often, 30.0)
    assert deb_host.agent_pid() == pid
    deb_host.host.run("systemctl", "kill", "--signal=STOP", "deploy-agent")
    wait_until(lambda: deb_host.agent_pid() not in (0, pid), 60.0)
    deb_host.wait_for_agent()
    assert deb_host.show("deploy-agent", "NRestarts") == "1"


def test_configuration_that_cannot_be_used_takes_a_person(deb_host: DebHost) -> None:
    deb_host.host.write("/etc/deploy-agent/conf.d/bad.yaml", "poll_intervall: 3s\n")
    assert deb_host.host.run("systemctl", "restart", "deploy-agent", check=False).returncode != 0
    assert deb_host.show("deploy-agent", "ExecMainStatus") == "78"
    assert deb_host.show("deploy-agent", "ActiveState") == "failed"
    (entry,) = deb_host.host.journal(f"MESSAGE_ID={Message.AGENT_REFUSED}")
    assert "poll_intervall" in entry["MESSAGE"]
    assert entry["FAILURE_CODE"] == "config-invalid"


def test_exposure_is_what_the_docs_state(deb_host: DebHost) -> None:
    command = ["systemd-analyze", "security", "--no-pager", "deploy-agent.service"]
    said = deb_host.host.output(*command)
    found = re.search(r"Overall exposure level for deploy-agent.service: ([\d.]+)", said)
    stated = re.search(
        r"exposure level of \*\*([\d.]+)\*\*", (ROOT / "docs/security.md").read_text()
    )
    assert found
    assert stated
    assert float(found[1]) <= float(stated[1])


def test_idle_agent_is_small(deb_host: DebHost, suite: str) -> None:
    deb_host.host.run("mkdir", "-p", "/srv/drop/web")
    deb_host.configure("source", "sources: [{type: directory, path: /srv/drop}]\n")
    wait_for_status(deb_host, "nothing desired")
    memory = deb_host.host.output("cat", f"/proc/{deb_host.agent_pid()}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", memory)
    assert found
    limit = {"bookworm": 40, "trixie": 46}[suite]
    assert int(found[1]) <= limit * MEBIBYTE


@dataclass(frozen=True)
class Everywhere:
    """A bundle with files of every kind, for all the places that a sandbox might close."""

    version: str
    breaks: bool = False
    name: str = "everywhere.zip"

    def zipped(self) -> bytes:
        places = ["/usr/local/bin", "/etc/app", "/opt/app", "/home/app", "/boot/app", "/srv/app"]
        places += ["/tmp/app", "/root/app", "/var/lib/app", "/usr/lib/modules/app", "/run/app"]
        appspec = {
            "version": 0.0,
            "os": "linux",
            "files": [{"source": "tool", "destination": each} for each in places],
            "permissions": [
                {"object": "/opt/app", "pattern": "tool", "owner": "nobody", "mode": "4755"},
                {"object": "/srv/app", "pattern": "tool", "group": "games", "mode": "2750"},
            ],
            "hooks": {"ValidateService": [{"location": "check", "timeout": 10}]},
        }
        content = {
            "appspec.yml": json.dumps(appspec),
            "tool": f"#!/bin/sh\necho {self.version}\n",
            "check": f"#!/bin/sh\nexit {int(self.breaks)}\n",
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)
        return buffer.getvalue()


def everywhere(host: DebHost) -> str:
    """Mode, owner, content and time of each."""
    found = host.host.output(
        *("find", "/usr/local/bin", "/etc/app", "/opt/app", "/home/app", "/boot/app", "/srv/app"),
        *("/tmp/app", "/root/app", "/var/lib/app", "/usr/lib/modules/app", "/run/app"),
        *("-name", "tool", "-printf", "%p %m %u:%g %T@ ", "-exec", "cat", "{}", ";"),
    )
    return found.replace("#!/bin/sh\n", "")


def test_sandbox_is_in_no_file_s_way(deb_host: DebHost) -> None:
    view = deb_host.deploy(Everywhere("1"))
    assert view["outcome"] == "succeeded", view["failure"]
    before = everywhere(deb_host)
    assert before.count("echo 1") == 11
    assert "/opt/app/tool 4755 nobody:root" in before
    assert "/srv/app/tool 2750 root:games" in before
    view = deb_host.deploy(Everywhere("2", breaks=True))
    assert view["outcome"] == "rolled_back", view["failure"]
    assert view["failure"]["code"] == "hook-failed"
    assert everywhere(deb_host) == before
