"""A host with a Consul agent, the agent, and a service that Consul's check can ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent
from tests.status_service import StatusService, http_answer, status_service
from tests.waiting import wait_until

NAME = "go-service"
_SYNC_SECONDS = 25.0  # an agent tells its servers again after 15 s what it could not at once
PREFIX = "config/go-service"  # which the least policy lets the agent read
# What Consul knows of the service at that moment, written between the hooks' own lines.
SEEN = """#!/bin/sh
curl -s -H "X-Consul-Token: {token}" {url}/v1/agent/checks > {base}/checks
if grep -q _service_maintenance {base}/checks; then state=blocked; else state=open; fi
echo "$LIFECYCLE_EVENT $REVISION_VERSION $state" >> {base}/events
"""
_SERVES = """
mkdir -p {base}/run
cat {base}/app/version > {base}/run/serving
"""
_STOP = """
if [ -f {base}/run/pid ]; then kill "$(cat {base}/run/pid)" 2>/dev/null; fi
rm -f {base}/run/pid {base}/run/serving
"""


@contextmanager
def acl_server(folder: Path) -> Iterator[ConsulAgent]:
    """A Consul server with ACLs that deny by default."""
    server = consul_server.server(folder, **consul_server.ACLS)
    with consul_server.running(server):
        consul_server.bootstrap_acls(server)
        server.token_for_tests = consul_server.make_token(server, "least")
        yield server


def acl_client(base: Path, server: ConsulAgent, **extra: Any) -> ConsulAgent:
    """The Consul agent of a host, of such a server; not started yet."""
    client = consul_server.client(
        base / "consul", server, name=base.name, **consul_server.ACLS, **extra
    )
    client.token = server.token
    client.change(
        acl={**consul_server.ACLS["acl"], "tokens": {"agent": server.token, "default": ""}}
    )
    return client


class Scene:
    """authority: whose certificates deploy-agent and its Consul agent show each other."""

    def __init__(
        self,
        base: Path,
        server: ConsulAgent,
        service: StatusService,
        authority: Path | None = None,
    ) -> None:
        self.base = base
        self.server = server
        self.consul = acl_client(base, server)
        self.token_file = base / "token"
        self.token_file.write_text(server.token_for_tests)
        given = {
            "address": self.consul.url,
            "token_file": str(self.token_file),
            "services_dir": str(self.consul.services_dir),
        }
        if authority is not None:
            given |= self._use_tls(authority)
        self.host = AgentHost(base, f"consul: {json.dumps(given)}\n")
        self.service = service
        service.answer = self._answer

    def _use_tls(self, authority: Path) -> dict[str, str]:
        """Let its Consul agent ask for certificates; what agent.yaml has to say then."""
        [port] = consul_server.free_ports(1)
        ca_file, key = str(authority / "consul-agent-ca.pem"), authority / "dc1-server-consul-0"
        self.consul.change(
            verify_incoming_https=True,
            ca_file=ca_file,
            cert_file=f"{key}.pem",
            key_file=f"{key}-key.pem",
            ports={**self.consul.ports, "https": port},
        )
        key = authority / "dc1-client-consul-0"
        return {
            "address": f"https://127.0.0.1:{port}",
            "ca_file": ca_file,
            "cert_file": f"{key}.pem",
            "key_file": f"{key}-key.pem",
        }

    def _answer(self, _number: int) -> bytes:
        """What Consul's check sees: 200 while a version serves whose name has no "bad"."""
        path = self.base / "run" / "serving"
        serving = path.read_text().strip() if path.exists() else ""
        good = serving and "bad" not in serving
        return http_answer(serving.encode(), "200 OK" if good else "503 Service Unavailable")

    def bundle(
        self, version: str, *, consul: str | None = None, environment: str = "", **more: Any
    ) -> Path:
        """A bundle with `services: [{consul: …}]`, its stop hook telling what Consul says then."""
        if consul is None:
            check = f"{{http: '{self.service.url}', interval: 200ms, timeout: 1s}}"
            consul = f"name: {NAME}, port: 8080, tags: [v{version}], drain: 100ms, within: 3s"
            consul += f", check: {check}"
        extra = f"services:\n  - consul: {{{consul}}}\n" if consul else ""
        extra += f"    environment: {{{environment}}}\n" if environment else ""
        hooks = {"ApplicationStop": self.script(SEEN + _STOP), **more.pop("hooks", {})}
        return make_bundle(self.base, version, hooks=hooks, extra=extra, **more)

    def environment(self) -> dict[str, str]:
        """What the service's environment file says; {} where there is none."""
        path = self.base / "etc" / "env"
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(each.split("=", 1) for each in lines if not each.startswith("#"))

    def script(self, text: str) -> str:
        """A hook's text with the places of this scene in it."""
        return text.replace("{token}", self.server.token).replace("{url}", self.consul.url)

    def starts_once(self) -> str:
        """A start hook that works for the first time, and no more."""
        begun = self.base / "begun"
        return f"#!/bin/sh\n[ ! -e {begun} ] || exit 1\ntouch {begun}\n{_SERVES}"

    # what a person would look at

    def registered(self, name: str = NAME) -> dict[str, Any] | None:
        """The local agent's entry."""
        found: dict[str, Any] | None = self.consul.ask("GET", f"/v1/agent/service/{name}")
        return found

    def version(self, name: str = NAME) -> str:
        """Of the registered revision; "" where there is none."""
        found = self.registered(name)
        return "" if found is None else found["Meta"].get("version", "?")

    def checks(self, name: str = NAME) -> dict[str, str]:
        """Statuses of the service's checks, by id."""
        found = self.consul.ask("GET", "/v1/agent/checks")
        return {key: each["Status"] for key, each in found.items() if each["ServiceID"] == name}

    def local_status(self, name: str = NAME) -> str:
        """As the local agent sums it up; "" where it is not registered."""
        path = f"{self.consul.url}/v1/agent/health/service/id/{name}?format=json"
        request = urllib.request.Request(path, headers={"X-Consul-Token": self.consul.token})
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:  # the status is in its code, too
            with error:
                found = {} if error.code == 404 else json.load(error)
        return str(found.get("AggregatedStatus", ""))

    def maintenance(self, name: str = NAME) -> str | None:
        """The reason of the service's maintenance."""
        found = self.consul.ask("GET", "/v1/agent/checks").get(f"_service_maintenance:{name}")
        return None if found is None else str(found["Notes"])

    def takes_traffic(self, name: str = NAME) -> bool:
        """Whether the servers give it to those who ask for what passes."""
        found = self.server.ask("GET", f"/v1/health/service/{name}?passing=true")
        return self.consul.name in [each["Node"]["Node"] for each in found]

    def wait_for_traffic(self, *, taken: bool = True) -> None:
        """Wait until the servers give it so."""
        wait_until(lambda: self.takes_traffic() is taken, _SYNC_SECONDS)

    def log(self, view: dict[str, Any]) -> str:
        """Of a deployment."""
        lines = self.host.client.stream(f"/v1/deployments/{view['id']}/log")
        return "\n".join(each["line"] for each in lines)

    def note(self, view: dict[str, Any], step: str) -> str:
        """What a step had to say."""
        return str(next(each["note"] for each in view["steps"] if each["name"] == step))


@contextmanager
def scene(
    base: Path,
    server: ConsulAgent,
    *,
    starts_consul: bool = True,
    authority: Path | None = None,
) -> Iterator[Scene]:
    """A host of its own; its agent and its Consul agent are ended."""
    with status_service() as service:
        found = Scene(base, server, service, authority)
        try:
            if starts_consul:
                found.consul.start()
                found.consul.wait_for_leader()
            found.host.start()
            yield found
        finally:
            found.host.clear()
            found.consul.stop()


def change_appspec(bundle: Path, old: str, new: str) -> None:
    """Replace a text in a bundle's appspec."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["appspec.yml"] = content["appspec.yml"].replace(old.encode(), new.encode())
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
