"""A host with our .deb on it: what one does with it, and what one then sees."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

from agent.client import Client
from agent.model.errors import AgentError
from tests.host.bundles import URL, Web
from tests.lab.hosts import Host
from tests.waiting import wait_until

_SOCKET = "/run/deploy-agent/agent.sock"
_START_SECONDS = 20.0
_END_SECONDS = 60.0
_FAULT_AGENT = Path(__file__).resolve().parents[1] / "fault_agent.py"
# The real agent with a fault, once: whatever starts after it is the agent that was installed.
_ONCE = """#!/bin/sh
if [ -e /opt/fault/fault ]; then
    fault=$(cat /opt/fault/fault)
    rm /opt/fault/fault
    export PYTHONPATH=/usr/share/deploy-agent
    exec python3 /opt/fault/fault_agent.py /etc/deploy-agent/agent.yaml "$fault"
fi
exec /usr/sbin/deploy-agent
"""
_DROP_IN = """[Service]
ExecStart=
ExecStart=/opt/fault/once
RestartSec=50ms
"""


class DebHost:
    """host: a booted one, with the .deb installed."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # the agent

    def configure(self, name: str, text: str) -> None:
        """Write a file of conf.d, and restart the agent."""
        self.host.write(f"/etc/deploy-agent/conf.d/{name}.yaml", text)
        self.host.run("systemctl", "restart", "deploy-agent")
        self.wait_for_agent()

    def put_fault(self, row: str, at: str, how: str) -> None:
        """Restart the agent with a fault in its table (tests/fault_agent.py) that strikes once."""
        self.host.write("/opt/fault/fault_agent.py", _FAULT_AGENT.read_text())
        self.host.write("/opt/fault/once", _ONCE, mode=0o755)
        fault = {"row": row, "at": at, "how": how}
        self.host.write("/opt/fault/fault", json.dumps(fault))
        self.host.write("/etc/systemd/system/deploy-agent.service.d/fault.conf", _DROP_IN)
        self.host.run("systemctl", "daemon-reload")
        self.host.run("systemctl", "restart", "deploy-agent")
        self.wait_for_agent()

    def kill_agent(self) -> None:
        """SIGKILL to the daemon alone; systemd starts it again."""
        before = self.agent_pid()
        self.host.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "deploy-agent")
        wait_until(lambda: self.agent_pid() not in (0, before), _START_SECONDS)
        self.wait_for_agent()

    def agent_pid(self) -> int:
        """Its process id on the host; 0 if there is none."""
        return int(self.show("deploy-agent", "MainPID"))

    def wait_for_agent(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, _START_SECONDS)

    def _answers(self) -> bool:
        try:
            return self._client().request("GET", "/v1/version", timeout=2.0)[0] == 200
        except AgentError:
            return False

    def _client(self) -> Client:
        return Client(str(self.host.path(_SOCKET)), 20.0)

    def ask(self, path: str) -> dict[str, Any]:
        """What the API answers to root."""
        status, answer = self._client().request("GET", path)
        assert status == 200, answer
        return answer

    # deployments

    def put_bundle(self, web: Web) -> str:
        """Bring a bundle onto the host; its path there."""
        path = f"/srv/{web.name}"
        self.host.path("/srv").joinpath(web.name).write_bytes(web.zipped())
        return path

    def agentctl(self, *argv: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run agentctl, whatever it ends with."""
        return self.host.run("agentctl", *argv, user=user, check=False, seconds=_END_SECONDS)

    def request(self, web: Web) -> str:
        """Ask for a deployment; its id."""
        path = self.put_bundle(web)
        asked = self.host.output("agentctl", "deploy", path, "--detach", "--json")
        return str(json.loads(asked)["deployment"]["id"])

    def deploy(self, web: Web) -> dict[str, Any]:
        """Deploy with agentctl, to the end; what the API says of it then."""
        done = self.agentctl("deploy", self.put_bundle(web), "--json")
        assert done.stdout, f"agentctl deploy ended with {done.returncode}: {done.stderr}"
        return self.deployment(json.loads(done.stdout)["deployment"]["id"])

    def deploy_good(self, web: Web) -> dict[str, Any]:
        """Deploy what has to succeed."""
        view = self.deploy(web)
        assert view["outcome"] == "succeeded", view["failure"]
        assert self.serving() == web.version
        return view

    def deployment(self, deployment_id: str = "last") -> dict[str, Any]:
        """What the API says of a deployment."""
        found: dict[str, Any] = self.ask(f"/v1/deployments/{deployment_id}")["deployment"]
        return found

    def wait_for_outcome(self, deployment_id: str = "last") -> dict[str, Any]:
        """Wait until a deployment has ended, also across restarts of the agent and the host."""

        def ended() -> dict[str, Any] | None:
            try:
                found = self.deployment(deployment_id)
            except AgentError:  # it is being restarted
                return None
            return found if found["status"] in ("done", "failed") else None

        return wait_until(ended, _END_SECONDS)

    # what a person would look at

    def serving(self) -> str:
        """The version that the status endpoint tells; "nothing" where nobody answers."""
        asked = self.host.run("curl", "--silent", "--max-time", "5", URL, check=False)
        return str(json.loads(asked.stdout)["version"]) if asked.returncode == 0 else "nothing"

    def wait_until_serving(self, version: str) -> None:
        """Wait until this version answers: after a boot it may take a moment."""
        wait_until(lambda: self.serving() == version, _START_SECONDS)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.host.output("systemctl", "show", "--value", f"--property={name}", unit)

    def processes(self) -> list[str]:
        """Command lines of everything that runs on it."""
        found = []
        for path in self.host.path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                found.append(path.read_text(errors="replace").replace("\0", " ").strip())
        return found

    def installed(self) -> dict[str, str]:
        """Everything that is installed of the service, by path: mode, owner and content."""
        script = (
            "find /opt/web /etc/systemd/system ! -type d -printf '%p %M %u:%g ' "
            r"\( -type l -printf '%l\n' -o -exec sha256sum {} ';' \)"
        )
        lines = self.host.output("sh", "-c", script).splitlines()
        return {line.split()[0]: line for line in lines if "deploy-agent" not in line}
