"""Consul as a fleet has it: a server in the lab, and on each host an agent as a unit.

ACLs deny by default, and the agents' API asks for a certificate.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil

from tests import consul_server
from tests.host.bundles import URL
from tests.host.deb_host import DebHost
from tests.host.unit_bundle import UnitWeb, service
from tests.lab import lab
from tests.lab.hosts import Host
from tests.waiting import wait_until

NAME = "go-service"  # the policy that is documented is for this one

_COMMAND = "/usr/bin/consul"
_SOCKET = "/run/consul.sock"
_MASTER = "6d1f0f4e-0000-4000-8000-000000000001"
_START_SECONDS = 30.0
_ANSWER_SECONDS = 5.0
_FILES = ("consul-agent-ca.pem", "dc1-server-consul-0.pem", "dc1-server-consul-0-key.pem")
_CLIENT = ("dc1-client-consul-0.pem", "dc1-client-consul-0-key.pem")
_UNIT = f"""[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=notify
ExecStart={_COMMAND} agent -config-dir=/etc/consul.d
ExecReload=/bin/kill --signal HUP $MAINPID
KillMode=process
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""
# as docs/consul.md has it, the token as a credential of the unit
_AGENT = """consul:
  address: https://127.0.0.1:8501
  token_file: consul-token
  ca_file: /etc/deploy-agent/consul/consul-agent-ca.pem
  cert_file: /etc/deploy-agent/consul/dc1-client-consul-0.pem
  key_file: /etc/deploy-agent/consul/dc1-client-consul-0-key.pem
"""
_CREDENTIAL = """[Service]
LoadCredential=consul-token:/etc/deploy-agent/consul/token
"""


_STATUS = {"url": URL, "version": "/version", "within": "10s", "stable_for": "0.2s"}


class Server:
    """Consul's server, which the hosts of a lab reach. It ends with the lab."""

    def __init__(self, own_lab: lab.Lab) -> None:
        folder = own_lab.folder / "consul"
        folder.mkdir()
        self._socket_path = folder / "http.sock"
        self.authority = consul_server.make_authority(folder / "tls")
        config = {
            "node_name": "server",
            "datacenter": "dc1",
            "bind_addr": lab.ADDRESS,
            "addresses": {"http": f"unix://{folder}/http.sock"},
            "disable_update_check": True,
            "ports": {"dns": -1, "grpc": -1, "serf_wan": -1},
            "acl": {**consul_server.ACLS["acl"], "tokens": {"master": _MASTER, "agent": _MASTER}},
        }
        (folder / "agent.json").write_text(json.dumps(config))
        argv = [
            consul_server.consul_command(),
            "agent",
            "-dev",
            f"-config-file={folder}/agent.json",
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                own_lab.namespaces.argv(*argv),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self.ask("PUT", "/v1/kv/ready", "1"), _START_SECONDS)
        rules = {"Name": "least", "Rules": consul_server.LEAST_POLICY}
        wait_until(lambda: self.ask("PUT", "/v1/acl/policy", rules), _START_SECONDS)
        given = {"Policies": [{"Name": "least"}]}
        self.token = str(self.ask("PUT", "/v1/acl/token", given)["SecretID"])

    def close(self) -> None:
        """End it alone: what entered the lab's namespaces for it waits for it, and then ends.

        Were both killed, the dead server would be a child of this process, if an earlier test has
        made that a subreaper, and the namespaces would wait for it.
        """
        for server in psutil.Process(self._process.pid).children():
            server.kill()
        self._process.wait(_START_SECONDS)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answers; None where it does not, or refuses."""
        return _ask(self._socket_path, method, path, body)

    def takes_traffic(self, host: str) -> bool:
        """Whether those who ask for what passes are given the service on a host."""
        found = self.ask("GET", f"/v1/health/service/{NAME}?passing=true")
        return host in [each["Node"]["Node"] for each in found]

    def registrations(self, host: str) -> list[dict[str, Any]]:
        """Everything that is registered under the service's name on a host."""
        found = self.ask("GET", f"/v1/catalog/service/{NAME}")
        return [each for each in found if each["Node"] == host]


class FleetHost(DebHost):
    """A host whose Consul agent is a client of the server."""

    def __init__(self, host: Host, server: Server) -> None:
        super().__init__(host)
        self._server = server

    def install_consul(self) -> None:
        """Start its Consul agent, and let deploy-agent use it."""
        host, authority = self.host, self._server.authority
        shutil.copy(consul_server.consul_command(), host.path(_COMMAND))
        for folder, names in (("/etc/consul.d/tls", _FILES), ("/etc/deploy-agent/consul", _CLIENT)):
            for name in (*names, _FILES[0]):
                host.write(f"{folder}/{name}", (authority / name).read_text(), mode=0o640)
        host.write("/etc/consul.d/agent.json", json.dumps(_client_config()), mode=0o640)
        host.write("/etc/systemd/system/consul.service", _UNIT)
        host.write("/etc/deploy-agent/consul/token", self._server.token, mode=0o600)
        host.write("/etc/systemd/system/deploy-agent.service.d/consul.conf", _CREDENTIAL)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "enable", "--quiet", "--now", "consul")
        self.wait_for_consul()
        self.configure("consul", _AGENT)

    def forget_name(self) -> None:
        """Let the next host that has its disk be another one to Consul."""
        self.host.run("systemctl", "stop", "consul")
        self.host.run("rm", "-r", "/var/lib/consul/node-id", "/var/lib/consul/serf")

    def wait_for_consul(self) -> None:
        """Wait until it answers, and knows its server."""
        wait_until(lambda: self.consul("/v1/kv/ready"), _START_SECONDS)

    def consul(self, path: str) -> Any:
        """What its Consul agent answers to one who may do all; None where it does not."""
        return _ask(self.host.path(_SOCKET), "GET", path)

    # what a person would look at

    def registered(self) -> str:
        """The version of the registered revision; "" where there is none."""
        found = self.consul(f"/v1/agent/service/{NAME}")
        return "" if found is None else str(found["Meta"].get("version", "?"))

    def maintenance(self) -> str | None:
        """The reason of the service's maintenance."""
        found = self.consul("/v1/agent/checks").get(f"_service_maintenance:{NAME}")
        return None if found is None else str(found["Notes"])

    def takes_traffic(self) -> bool:
        """Whether those who ask the server for what passes are sent here."""
        return self._server.takes_traffic(self.host.name)

    def catalogue(self) -> list[dict[str, Any]]:
        """What the server knows of the service on this host, the meta of each registration."""
        return [each["ServiceMeta"] for each in self._server.registrations(self.host.name)]

    def assert_in_traffic(self, version: str) -> None:
        """This version serves, and is registered, once, as its deployment did it."""
        wait_until(self.takes_traffic, _START_SECONDS)
        assert (self.registered(), self.maintenance()) == (version, None)
        assert [each.get("version", "?") for each in self.catalogue()] == [version]


def web(
    version: str, *, is_critical: bool = False, is_registered: bool = True, **more: Any
) -> UnitWeb:
    """A revision with `services: consul`. is_critical: Consul's check of it never passes."""
    check = {"http": "http://127.0.0.1:9/" if is_critical else "/status", "interval": "1s"}
    within = "1s" if is_critical else "10s"
    consul = {"name": NAME, "port": 8080, "check": check, "drain": "200ms", "within": within}
    entry = service(status=_STATUS, **({"consul": consul} if is_registered else {}))
    return UnitWeb(version, services=(entry,), **more)


def _client_config() -> dict[str, Any]:
    ca_file, cert_file, key_file = (f"/etc/consul.d/tls/{name}" for name in _FILES)
    return {
        "datacenter": "dc1",
        "data_dir": "/var/lib/consul",
        "bind_addr": '{{ GetAllInterfaces | include "name" "host0" | attr "address" }}',
        "client_addr": "127.0.0.1",
        "addresses": {"http": f"unix://{_SOCKET}"},
        "disable_update_check": True,
        "retry_join": [lab.ADDRESS],
        "retry_interval": "200ms",
        "leave_on_terminate": False,  # it would take 5 s
        "ports": {"https": 8501, "dns": -1},
        "verify_incoming_https": True,
        "ca_file": ca_file,
        "cert_file": cert_file,
        "key_file": key_file,
        "acl": {**consul_server.ACLS["acl"], "tokens": {"agent": _MASTER}},
    }


class _Connection(http.client.HTTPConnection):
    """To a unix socket: the hosts' networks are not this process's."""

    def __init__(self, path: Path) -> None:
        super().__init__("consul", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWER_SECONDS)
        self.sock.connect(str(self._path))


def _ask(socket_path: Path, method: str, path: str, body: object = None) -> Any:
    connection = _Connection(socket_path)
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, content, {"X-Consul-Token": _MASTER})
        answer = connection.getresponse()
        given = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return json.loads(given or b"{}") if answer.status == 200 else None
