"""Real Consul for tests: servers and clients on loopback, with ACLs or TLS where a test asks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.model.settings import ConsulSettings
from tests.waiting import wait_until

# where .ci/debian-packages puts it on a machine that has none of its own
_FETCHED = Path("/var/tmp/deploy-agent-consul/consul")
START_SECONDS = 8.0
# The least that docs/consul.md names, for a service "go-service" and the prefix "deploy".
LEAST_POLICY = """
service "go-service" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "write" }
session_prefix "" { policy = "write" }
key_prefix "deploy/" { policy = "write" }
key_prefix "config/go-service/" { policy = "read" }
"""


def consul_command() -> str:
    """The command, or a skip that says where it comes from."""
    found = shutil.which("consul") or (str(_FETCHED) if _FETCHED.exists() else None)
    if found is None:
        pytest.skip("needs consul: run .ci/debian-packages tests")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class ConsulAgent:
    """One `consul agent` process. extra: more of its configuration, merged over ours."""

    def __init__(
        self, folder: Path, extra: dict[str, Any], *, name: str, options: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self._options = options
        self.name = name
        self.http_port, self.serf_port, self.server_port = free_ports(3)
        self.token = ""
        self.token_for_tests = ""
        self.services_dir = folder / "consul.d"
        self.services_dir.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        ports = {
            "http": self.http_port,
            "serf_lan": self.serf_port,
            "server": self.server_port,
            "dns": -1,
            "grpc": -1,
            "serf_wan": -1,
        }
        extra = dict(extra)
        self.ports = ports | extra.pop("ports", {})
        config = {
            "node_name": name,
            "datacenter": "dc1",
            **({} if options else {"data_dir": str(folder / "state")}),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "log_level": "info",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "skip_leave_on_interrupt": True,
            "performance": {"raft_multiplier": 1},
            "ports": self.ports,
            **extra,
        }
        self._config = config
        self.change()

    @property
    def dns_port(self) -> int:
        """-1 where a test has not asked for one."""
        return int(self._config["ports"]["dns"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def settings(self, **changed: str) -> ConsulSettings:
        """What the agent under test is configured with."""
        return ConsulSettings(**{"address": self.url, **changed})

    def change(self, **extra: Any) -> None:
        """More of its configuration, read when it starts."""
        self._config |= extra
        (self.services_dir / "agent.json").write_text(json.dumps(self._config))

    def start(self) -> None:
        """Begin; wait_for_leader waits until it is of use."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [consul_command(), "agent", f"-config-dir={self.services_dir}", *self._options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,  # -dev writes its tokens there
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, as a power cut does by default, and wait for that."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self._process.pid}/task")
        # each of its threads stops by itself, and one may answer yet
        wait_until(lambda: all(_is_stopped(each) for each in threads.iterdir()))

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Any:
        """A question of the test's own: what JSON says, None for a 404. Raises HTTPError."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = self._request(path, token, method, content if body is not None else None)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            raise
        return json.loads(text) if text else None

    def ask_with_index(self, path: str, *, token: str) -> tuple[Any, int]:
        """A blocking query: what JSON says, and Consul's index of it. Raises HTTPError."""
        request = self._request(path, token, "GET", None)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response), int(response.headers["X-Consul-Index"])

    def _request(
        self, path: str, token: str | None, method: str, content: bytes | None
    ) -> urllib.request.Request:
        headers = {"X-Consul-Token": self.token if token is None else token}
        return urllib.request.Request(self.url + path, content, headers, method=method)

    def put_kv(self, key: str, value: bytes) -> None:
        assert self.ask("PUT", f"/v1/kv/{key}", value) is True

    def has_leader(self) -> bool:
        try:
            return bool(self.ask("GET", "/v1/status/leader"))
        except OSError:
            return False

    def wait_for_leader(self, seconds: float = START_SECONDS) -> None:
        """Wait until its servers have elected one, and take writes from here."""
        wait_until(lambda: self.has_leader() and self.is_writable(), seconds)

    def is_writable(self) -> bool:
        """Whether a write from here is taken; without a leader Consul thinks for 7 s."""
        try:
            self.ask("PUT", "/v1/kv/tests/ready", b"")
        except urllib.error.HTTPError as error:
            return error.code == 403  # a leader that knows its ACLs
        except OSError:
            return False
        return True

    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def server(folder: Path, *, name: str = "server-1", **extra: Any) -> ConsulAgent:
    """A server of its own datacenter, not started yet; Consul's -dev.

    It has a leader within 0.3 s, and forgets all it knew when it ends.
    """
    return ConsulAgent(folder, extra, name=name, options=("-dev",))


def lasting_server(folder: Path, *, name: str = "server-1", **extra: Any) -> ConsulAgent:
    """A server whose state outlives a restart; its election takes two seconds."""
    options: dict[str, Any] = {"server": True, "bootstrap_expect": 1}
    return ConsulAgent(folder, options | extra, name=name)


def cluster(folder: Path) -> tuple[list[ConsulAgent], ConsulAgent]:
    """Three servers, of which one may be lost, and a client agent; not started yet."""
    servers = [
        lasting_server(folder / f"server-{n}", name=f"server-{n}", bootstrap_expect=3)
        for n in range(3)
    ]
    joined = [f"127.0.0.1:{each.serf_port}" for each in servers]
    for each in servers:
        each.change(retry_join=joined, retry_interval="200ms")
    return servers, client(folder / "client", servers[0], retry_join=joined)


def client(folder: Path, of: ConsulAgent, *, name: str = "host-1", **extra: Any) -> ConsulAgent:
    """A client agent of a server, not started yet: what a host with services runs."""
    options: dict[str, Any] = {
        "retry_join": [f"127.0.0.1:{of.serf_port}"],
        "retry_interval": "200ms",
    }
    return ConsulAgent(folder, options | extra, name=name)


@contextmanager
def running(*agents: ConsulAgent, seconds: float = START_SECONDS) -> Iterator[None]:
    """Start agents and wait for their leader; end them, by their ids."""
    try:
        for each in agents:
            each.start()
        for each in agents:
            each.wait_for_leader(seconds)
        yield
    finally:
        for each in agents:
            each.stop()


ACLS = {
    "acl": {"enabled": True, "default_policy": "deny", "enable_token_persistence": True},
}


def bootstrap_acls(first: ConsulAgent, *others: ConsulAgent) -> None:
    """Make the token that may do everything; the agents themselves use it too."""

    def bootstrapped() -> str:
        try:
            return str(first.ask("PUT", "/v1/acl/bootstrap")["SecretID"])
        except urllib.error.HTTPError:
            return ""

    token = wait_until(bootstrapped, START_SECONDS)
    for each in (first, *others):
        each.token = token
        each.ask("PUT", "/v1/agent/token/agent", {"Token": token})


def make_token(of: ConsulAgent, name: str, rules: str = LEAST_POLICY) -> str:
    """A policy and a token with it; the token's secret."""
    of.ask("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
    made = of.ask("PUT", "/v1/acl/token", {"Description": name, "Policies": [{"Name": name}]})
    return str(made["SecretID"])


def change_policy(of: ConsulAgent, name: str, rules: str) -> None:
    """Give a policy other rules; tokens that have it follow at once."""
    found = of.ask("GET", f"/v1/acl/policy/name/{name}") or next(
        each for each in of.ask("GET", "/v1/acl/policies") if each["Name"] == name
    )
    of.ask("PUT", f"/v1/acl/policy/{found['ID']}", {"Name": name, "Rules": rules})


def make_authority(folder: Path) -> Path:
    """A new CA below folder, with certificates for a server and a client."""
    folder.mkdir()
    for command in ("ca create", "cert create -server -dc dc1", "cert create -client -dc dc1"):
        subprocess.run(
            [consul_command(), "tls", *command.split()],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def _is_stopped(thread: Path) -> bool:
    """Of /proc, whether it is in the state T: proc(5)."""
    try:
        return (thread / "stat").read_text().rpartition(") ")[2].startswith("T")
    except OSError:
        return True  # it has ended
