"""How long a changed key of Consul takes to be committed, beside what the service itself takes."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from tests import consul_server
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.waiting import wait_until

_ROUNDS = 20


def measure(work: Path) -> dict[str, float]:
    """Milliseconds from the write of a key, median of 20: no service is told, no hook runs."""
    base = work / "keys"
    base.mkdir()
    server = consul_server.server(base / "consul")
    with consul_server.running(server):
        host = AgentHost(base, f"consul: {{address: '{server.url}'}}\n")
        try:
            host.start()
            return _measure(host, server)
        finally:
            host.clear()


def _measure(host: AgentHost, server: consul_server.ConsulAgent) -> dict[str, float]:
    appspec = (
        "version: 0.0\nos: linux\nservices:\n  - environment: {prefix: config/service,"
        f" on_change: none, file: {host.base}/etc/env}}\n"
    )
    server.put_kv("config/service/A", b"0")
    host.deploy_good(make_bundle(host.base, "1", files={"appspec.yml": appspec}))
    asked, committed = [], []
    for number in range(1, _ROUNDS + 1):
        began = time.time()
        server.put_kv("config/service/A", str(number).encode())
        view = _wait_for_change(host, began)
        commit = next(each for each in view["steps"] if each["name"] == "commit")
        asked.append(view["created_at"] - began)
        committed.append(commit["started_at"] - began)
        time.sleep(1.0)  # the watch limits its own rate
    return {
        "ms to the request": statistics.median(asked) * 1000,
        "ms to the commit": statistics.median(committed) * 1000,
        "slowest": max(committed) * 1000,
    }


def _wait_for_change(host: AgentHost, began: float) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        view = host.deployment()
        is_it = view["trigger"] == "environment" and view["created_at"] > began
        return view if is_it and view["status"] == "done" else {}

    return wait_until(found, 10.0)
