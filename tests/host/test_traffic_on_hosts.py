"""A service in the catalogue of a real Consul over deployments, crashes and reboots.

The Consul agent is a unit of the host with a data_dir, its API over TLS, and ACLs that deny all
but what docs/consul.md names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.host import fleet
from tests.host.bundles import Hook
from tests.host.fleet import NAME, FleetHost
from tests.host.unit_bundle import UnitWeb
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# One of the Debians each, to save time: what differs, python-consul, is in all of them.
on_12 = pytest.mark.parametrize("suite", ["bookworm"], indirect=True)
on_13 = pytest.mark.parametrize("suite", ["trixie"], indirect=True)
ROWS = ["block-traffic", "allow-traffic"]
_WAIT = Hook("#!/bin/sh\nuntil [ -e /tmp/go ]; do sleep 0.05; done\nrm /tmp/go\n")
_SECONDS = 20.0


def begin(host: FleetHost, web: UnitWeb) -> str:
    """Ask for a deployment; its id, when it is out of traffic and waits."""
    deployment_id = host.request(web)
    wait_until(host.maintenance, _SECONDS)
    return deployment_id


def end(host: FleetHost, deployment_id: str) -> dict[str, Any]:
    """Let it go on, to its end."""
    host.host.write("/tmp/go", "")
    return host.wait_for_outcome(deployment_id)


def waiting(version: str, **more: Any) -> UnitWeb:
    return fleet.web(version, hooks={"BeforeInstall": _WAIT}, **more)


def test_good_better_broken(fleet_host: FleetHost) -> None:
    deployment_id = begin(fleet_host, waiting("2"))
    assert str(fleet_host.maintenance()).endswith(f"deployment {deployment_id} of 2")
    assert fleet_host.registered() == "1"
    wait_until(lambda: not fleet_host.takes_traffic(), _SECONDS)
    better = end(fleet_host, deployment_id)
    assert better["outcome"] == "succeeded", better["failure"]
    fleet_host.assert_in_traffic("2")
    [meta] = fleet_host.catalogue()
    assert (meta["revision"], meta["deployment_id"]) == (better["digest"], deployment_id)
    broken = fleet_host.deploy(fleet.web("3", is_critical=True))
    assert broken["outcome"] == "rolled_back"
    assert broken["failure"]["code"] == "consul-critical"
    assert fleet_host.serving() == "2"
    fleet_host.assert_in_traffic("2")
    assert fleet_host.catalogue() == [meta]
    told = fleet_host.agentctl("doctor").stdout
    assert "the token in consul-token may do all that this host needs" in told
    assert "web: go-service is registered, and passing" in told
    assert "problem" not in told


@on_12
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("at", ["do-after", "undo-after"])
def test_agent_killed(fleet_host: FleetHost, row: str, at: str) -> None:
    fleet_host.put_fault(row, at, "kill")
    deployment_id = fleet_host.request(fleet.web("2", is_critical=at.startswith("undo")))
    view = fleet_host.wait_for_outcome(deployment_id)
    assert_undone(fleet_host, view)


@on_13
@pytest.mark.parametrize("row", ROWS)
def test_host_stopped_hard(fleet_host: FleetHost, row: str) -> None:
    fleet_host.put_fault(row, "do-after", "power-cut")
    deployment_id = fleet_host.request(fleet.web("2"))
    fleet_host.host.wait_for_end()
    fleet_host.host.boot()
    view = fleet_host.wait_for_outcome(deployment_id)
    assert_undone(fleet_host, view)


def assert_undone(host: FleetHost, view: dict[str, Any]) -> None:
    assert (view["starts"], view["outcome"]) == (2, "rolled_back"), view["failure"]
    host.wait_until_serving("1")
    host.assert_in_traffic("1")


@on_12
def test_consul_stopped_and_restarted_in_a_deployment(fleet_host: FleetHost) -> None:
    deployment_id = begin(fleet_host, waiting("2"))
    fleet_host.host.run("systemctl", "stop", "consul")
    view = end(fleet_host, deployment_id)
    assert view["outcome"] == "succeeded", view["failure"]
    assert fleet_host.serving() == "2"
    [application] = fleet_host.ask("/v1/status")["applications"]
    assert "connection refused" in application["consul"]["problem"]
    fleet_host.host.run("systemctl", "start", "consul")
    wait_until(lambda: fleet_host.registered() == "2", _SECONDS)
    fleet_host.assert_in_traffic("2")
    deployment_id = begin(fleet_host, waiting("3"))
    fleet_host.host.run("systemctl", "restart", "consul")
    assert fleet_host.maintenance()
    view = end(fleet_host, deployment_id)
    assert view["outcome"] == "succeeded", view["failure"]
    fleet_host.assert_in_traffic("3")


@on_13
def test_definition_in_consuls_directory(
    fleet_host: FleetHost, consul_of_lab: fleet.Server
) -> None:
    entry = {
        "name": NAME,
        "port": 8080,
        "token": consul_of_lab.token,
        "check": {"http": "http://127.0.0.1:8080/status", "interval": "1s"},
    }
    files = {"go-service.json": json.dumps({"service": entry})}
    fleet_host.deploy_good(fleet.web("2", definitions=files))  # beside services: consul
    fleet_host.assert_in_traffic("?")
    fleet_host.host.reboot()
    fleet_host.wait_until_serving("2")
    fleet_host.assert_in_traffic("?")
    fleet_host.deploy_good(fleet.web("3"))
    fleet_host.assert_in_traffic("3")
    alone = fleet.web("4", is_registered=False, definitions=files)
    fleet_host.deploy_good(alone)
    fleet_host.assert_in_traffic("?")
    fleet_host.deploy_good(fleet.web("5", is_registered=False))
    wait_until(lambda: not fleet_host.catalogue(), _SECONDS)
    assert fleet_host.registered() == ""
