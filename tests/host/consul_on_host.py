"""A Consul of a host's own, which its agent uses."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests import consul_server
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

_COMMAND = "/usr/local/bin/consul"
_START_SECONDS = 20.0


def start(host: DebHost) -> None:
    """Start it as a service, and let the agent use it."""
    shutil.copy(consul_server.consul_command(), host.host.path(_COMMAND))
    host.host.run("systemd-run", "--quiet", "--unit=consul", _COMMAND, "agent", "-dev")
    wait_until(lambda: _kv(host, "put", "ready", "1"), _START_SECONDS)
    host.configure("consul", "consul: {}\n")


def put(host: DebHost, prefix: str, **values: str) -> None:
    """Write keys below a prefix."""
    for name, value in values.items():
        assert _kv(host, "put", f"{prefix}/{name}", value)


def read_json(host: DebHost, key: str) -> dict[str, Any]:
    """What is in a key; {} where it is not there."""
    done = host.host.run(_COMMAND, "kv", "get", key, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def _kv(host: DebHost, *argv: str) -> bool:
    return host.host.run(_COMMAND, "kv", *argv, check=False).returncode == 0
