"""A host behind a load balancer: its Consul agent, its deploy-agent, and a service that is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests import consul_server, traffic_scene
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.consul_server import ConsulAgent

NAME = "go-service"
_PROGRAM = Path(__file__).with_name("busy_service.py")
_START = """#!/bin/sh
mkdir -p {base}/run
exec < /dev/null >> {base}/service.log 2>&1
{python} {program} {host} {port} "$(cat {base}/app/version)" {base}/requests {options} &
echo $! > {base}/run/pid
"""
# It is over when the process is: what comes next wants its port.
_STOP = """#!/bin/sh
if [ ! -f {base}/run/pid ]; then exit 0; fi
pid=$(cat {base}/run/pid)
kill "$pid" 2>/dev/null
for _ in $(seq 500); do
    case $(cut -d" " -f3 "/proc/$pid/stat" 2>/dev/null) in ""|Z) break ;; esac
    sleep 0.01
done
rm -f {base}/run/pid
"""
_MOMENT = """#!/bin/sh
echo "$LIFECYCLE_EVENT $(date +%s.%N)" >> {base}/moments
"""
_BLOCK, _OUT, _IN = "BeforeBlockTraffic", "AfterBlockTraffic", "BeforeAllowTraffic"
_SERVICES = """services:
  - status: {{url: "http://127.0.0.1:{port}/status", within: 1s, stable_for: 100ms}}
"""
_CONSUL = """    consul:
      name: go-service
      port: {port}
      check: {{http: /health, interval: 200ms, timeout: 1s}}
      within: 1s
      drain: {drain}
"""


class Broken(StrEnum):
    """What is wrong with a revision."""

    VALIDATE = "its ValidateService fails"
    OTHER_VERSION = "its status endpoint tells another version"
    NO_START = "its process ends before it listens"
    CHECK = "Consul's check never passes"
    LATE = "AfterAllowTraffic fails, when it is in traffic already"


_OPTIONS = {
    Broken.OTHER_VERSION: "--reports 0",
    Broken.NO_START: "--ends",
    Broken.CHECK: "--is-sick",
}
_FAILING = "#!/bin/sh\nexit 1\n"


class BalancedHost:
    """drain: of its bundles."""

    def __init__(self, base: Path, server: ConsulAgent) -> None:
        self.base = base
        self.name = base.name
        self.drain = "750ms"
        self.port = consul_server.free_ports(1)[0]
        self.consul = traffic_scene.acl_client(base, server)
        token_file = base / "token"
        token_file.write_text(server.token_for_tests)
        self.host = AgentHost(
            base, f"consul:\n  address: {self.consul.url}\n  token_file: {token_file}\n"
        )

    def bundle(
        self, version: str, broken: Broken | None = None, *, with_consul: bool = True
    ) -> Path:
        """A revision of the service. with_consul: it has `consul` in its appspec."""
        hooks = {"ApplicationStart": self._script(_START, broken), "ApplicationStop": _STOP}
        if broken is Broken.VALIDATE:
            hooks["ValidateService"] = _FAILING
        files = {f"scripts/{event}": self._script(_MOMENT) for event in (_BLOCK, _OUT, _IN)}
        files["scripts/AfterAllowTraffic"] = _FAILING if broken is Broken.LATE else "#!/bin/sh\n"
        services = _SERVICES + (_CONSUL if with_consul else "")
        extra = services.format(port=self.port, drain=self.drain)
        made = make_bundle(self.base, version, hooks=hooks, files=files, extra=extra)
        events = "".join(
            f"  {event}:\n    - location: scripts/{event}\n"
            for event in (_BLOCK, _OUT, _IN, "AfterAllowTraffic")
        )
        traffic_scene.change_appspec(made, "hooks:\n", f"hooks:\n{events}")
        return made

    def deploy(self, version: str, broken: Broken | None = None, **more: Any) -> None:
        """Deploy it, and see it end as it has to; shows the log where it does not."""
        view = self.host.deploy(self.bundle(version, broken, **more))
        if view["outcome"] != ("rolled_back" if broken else "succeeded"):
            log = self.host.client.stream(f"/v1/deployments/{view['id']}/log")
            raise AssertionError("\n".join([str(broken), *(each["line"] for each in log)]))

    def _script(self, text: str, broken: Broken | None = None) -> str:
        values = {
            "base": str(self.base),
            "python": sys.executable,
            "program": str(_PROGRAM),
            "host": self.name,
            "port": str(self.port),
            "options": _OPTIONS.get(broken, "") if broken else "",
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    # what a person would look at

    def requests(self) -> list[tuple[float, str]]:
        """When it was asked, and which version answered; checks do not count."""
        lines = (self.base / "requests").read_text().splitlines()
        return [(float(when), version) for when, version in (each.split() for each in lines)]

    def out_of_traffic(self) -> list[tuple[float, float, float]]:
        """As the hooks of deployments tell: when leaving began, from when to when it was out."""
        lines = (self.base / "moments").read_text().splitlines()
        found, block, out = [], 0.0, None
        for event, text in (each.split() for each in lines):
            when = float(text)
            if event == _BLOCK:
                block = when
            elif event == _OUT:
                out = when
            elif out is not None:
                found.append((block, out, when))
                out = None
        return found

    def maintenance(self) -> str | None:
        """The reason of the service's maintenance."""
        found = self.consul.ask("GET", "/v1/agent/checks").get(f"_service_maintenance:{NAME}")
        return None if found is None else str(found["Notes"])

    def registered(self) -> dict[str, Any] | None:
        """The local agent's entry."""
        found: dict[str, Any] | None = self.consul.ask("GET", f"/v1/agent/service/{NAME}")
        return found


@contextmanager
def running(base: Path, server: ConsulAgent) -> Iterator[BalancedHost]:
    """Such a host with nothing deployed; its agent, service and Consul agent are ended."""
    base.mkdir()
    found = BalancedHost(base, server)
    try:
        found.consul.start()
        found.consul.wait_for_leader()
        found.host.start()
        yield found
    finally:
        found.host.clear()
        found.consul.stop()
