"""A host folder with a real agent process on it, for tests that deploy, kill and look."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from agent.client import Client
from agent.model.errors import AgentError
from tests.trees import fingerprint
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
END_SECONDS = 30.0


class AgentHost:
    """Everything of one test below `base`: <base>/state, <base>/run, and what is installed."""

    def __init__(self, base: Path, config: str = "", state_dir: Path | None = None) -> None:
        self.base = base
        self.state_dir = state_dir or base / "state"
        # a path of a unix socket is at most 108 bytes (unix(7))
        self.run_dir = base / "s"
        self.config = base / "agent.yaml"
        self.config.write_text(
            f"state_dir: {self.state_dir}\nrun_dir: {self.run_dir}\n"
            "poll_interval: 0.1s\nhooks: {grace: 1s}\n" + config
        )
        self.log = base / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Client(str(self.run_dir / "agent.sock"), 20.0)

    def start(self, *faults: dict[str, str]) -> None:
        """Start the agent and wait until it answers, or until a fault has ended it."""
        argv = [sys.executable, "-m", "tests.fault_agent", str(self.config)]
        argv += [json.dumps(fault) for fault in faults]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(lambda: self.has_ended() or self.is_answering(), START_SECONDS)

    def is_answering(self) -> bool:
        try:
            return self.client.request("GET", "/v1/version", timeout=2.0)[0] == 200
        except AgentError:
            return False

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def wait_for_end(self) -> int:
        """Wait until the agent's process has ended; its exit status."""
        assert self._process is not None
        return self._process.wait(END_SECONDS)

    def kill(self) -> None:
        """SIGKILL the agent."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(END_SECONDS)

    def terminate(self) -> None:
        """SIGTERM the agent."""
        assert self._process is not None
        self._process.terminate()

    def wait_for_file(self, path: Path) -> None:
        """Wait until a hook has made this file."""
        wait_until(path.exists, END_SECONDS)

    def stop(self) -> None:
        """SIGTERM the agent, and wait."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(END_SECONDS)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One API call that has to work."""
        status, answer = self.client.request(method, path, body)
        assert status < 400, answer
        return answer

    def request(self, bundle: Path, **more: Any) -> str:
        """Ask for a deployment of application "service"; its id."""
        body = {"bundle": str(bundle), "application": "service", **more}
        return str(self.ask("POST", "/v1/deployments", body)["deployment"]["id"])

    def deployment(self, deployment_id: str = "last") -> dict[str, Any]:
        """What the API says of a deployment."""
        found: dict[str, Any] = self.ask("GET", f"/v1/deployments/{deployment_id}")["deployment"]
        return found

    def wait_for_outcome(self, deployment_id: str = "last") -> dict[str, Any]:
        """Wait until a deployment has ended, its report and prune included."""

        def ended() -> dict[str, Any] | None:
            found = self.deployment(deployment_id)
            return found if found["status"] in ("done", "failed") else None

        return wait_until(ended, END_SECONDS)

    def deploy(self, bundle: Path, **more: Any) -> dict[str, Any]:
        """Deploy and wait for the outcome."""
        return self.wait_for_outcome(self.request(bundle, **more))

    def deploy_good(self, bundle: Path, **more: Any) -> dict[str, Any]:
        """Deploy what has to succeed; shows the whole log where it does not."""
        view = self.deploy(bundle, **more)
        if view["outcome"] != "succeeded":
            log = self.client.stream(f"/v1/deployments/{view['id']}/log")
            raise AssertionError("\n".join(each["line"] for each in log))
        return view

    # what a person would look at

    def files(self) -> Any:
        """Fingerprint of everything installed."""
        return fingerprint(self.base / "app")

    def serving(self) -> str:
        """The version that serves: named by the start hook, and its process is alive."""
        try:
            version = (self.base / "run" / "serving").read_text().strip()
            pid = int((self.base / "run" / "pid").read_text())
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.NoSuchProcess):
            return "nothing"
        return version if alive else "nothing"

    def events(self) -> list[str]:
        """What the hooks wrote, in order."""
        path = self.base / "events"
        return path.read_text().splitlines() if path.exists() else []

    def clear(self) -> None:
        """End what the test left running: the agent and the service's processes."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._signal_hooks(signal.SIGKILL)

    def die(self) -> None:
        """What a power cut does to the agent and to all that its hooks have started."""
        self.clear()

    def freeze(self) -> None:
        """Stop the agent and all that its hooks have started, as a host that stands still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._signal_hooks(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on, the hooks first."""
        assert self._process is not None
        self._signal_hooks(signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def _signal_hooks(self, number: signal.Signals) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("RELEASE_DIR", "").startswith(str(self.state_dir)):
                    os.kill(process.pid, number)
