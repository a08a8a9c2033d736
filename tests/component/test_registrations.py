"""Consul away, its token wrong, its memory lost, people who drain: what the agent makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import consul_server, traffic_scene
from tests.consul_server import ConsulAgent
from tests.traffic_scene import NAME, PREFIX, Scene
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

DEAD = "deploy-agent: deployment d-DEAD of 0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with traffic_scene.acl_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def scene(state_dir: Path, server: ConsulAgent) -> Iterator[Scene]:
    with traffic_scene.scene(state_dir, server) as scene:
        yield scene


def told(scene: Scene) -> dict[str, Any]:
    """What status says of Consul."""
    [application] = scene.host.ask("GET", "/v1/status")["applications"]
    found: dict[str, Any] = application["consul"]
    return found


def waiting(scene: Scene) -> str:
    """A hook that makes a file, and waits for another one."""
    there, go = scene.base / "there", scene.base / "go"
    return f"#!/bin/sh\ntouch {there}\nwhile [ ! -e {go} ]; do sleep 0.05; done\n"


def start_round(scene: Scene) -> None:
    """The agent looks after Consul when it starts; no test waits half a minute for it."""
    scene.host.stop()
    scene.host.start()


def test_consul_is_away_before_and_comes_back(scene: Scene) -> None:
    scene.consul.stop()
    view = scene.host.deploy_good(scene.bundle("1"))
    assert "it is told later" in scene.note(view, "allow-traffic")
    assert scene.host.serving() == "1"
    found = told(scene)
    assert "cannot" in found["problem"]
    assert [each["registered"] for each in found["services"]] == [None]

    scene.consul.start()
    scene.consul.wait_for_leader()
    wait_until(lambda: scene.version() == "1", 15)  # by itself: after a problem it looks sooner
    scene.wait_for_traffic()
    found = wait_until(lambda: (each := told(scene))["services"][0]["passing"] and each)
    assert found["problem"] == ""
    assert found["services"][0]["registered_by"] == "service"


def test_consul_goes_away_in_the_middle(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    wait = waiting(scene)
    deployment = scene.host.request(scene.bundle("2", hooks={"BeforeInstall": wait}))
    scene.host.wait_for_file(scene.base / "there")
    scene.consul.stop()
    (scene.base / "go").touch()
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "succeeded"
    assert scene.host.serving() == "2"
    scene.consul.start()
    scene.consul.wait_for_leader()
    assert deployment in str(scene.maintenance())
    start_round(scene)
    wait_until(lambda: (scene.version(), scene.maintenance()) == ("2", None))


def test_an_undo_without_consul_is_made_good_later(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    wait = (
        f"#!/bin/sh\ntouch {scene.base}/there\nwhile [ ! -e {scene.base}/go ]; do :; done\nexit 1\n"
    )
    deployment = scene.host.request(scene.bundle("2", hooks={"BeforeInstall": wait}))
    scene.host.wait_for_file(scene.base / "there")
    scene.consul.stop()
    (scene.base / "go").touch()
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "rolled_back"
    scene.consul.start()
    scene.consul.wait_for_leader()
    start_round(scene)
    wait_until(lambda: (scene.version(), scene.maintenance()) == ("1", None))


def test_a_first_revision_that_is_undone_without_consul(scene: Scene) -> None:
    bundle = scene.bundle("1", files={"scripts/after": waiting(scene) + "exit 1\n"})
    event = "  AfterAllowTraffic:\n    - location: scripts/after\n"
    traffic_scene.change_appspec(bundle, "hooks:\n", f"hooks:\n{event}")
    deployment = scene.host.request(bundle)
    scene.host.wait_for_file(scene.base / "there")
    assert scene.version() == "1"
    scene.consul.stop()
    (scene.base / "go").touch()
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "rolled_back"
    scene.host.stop()  # its next round may be due just now
    scene.consul.start()
    scene.consul.wait_for_leader()
    assert scene.version() == "1"
    scene.host.start()
    wait_until(lambda: scene.registered() is None)


def test_the_servers_are_gone_and_the_local_agent_is_there(state_dir: Path) -> None:
    (state_dir / "host").mkdir()
    with (
        traffic_scene.acl_server(state_dir / "server") as server,
        traffic_scene.scene(state_dir / "host", server) as scene,
    ):
        scene.host.deploy_good(scene.bundle("1"))
        server.stop()
        scene.consul.token = server.token_for_tests  # which the local agent has in its cache
        view = scene.host.deploy_good(scene.bundle("2"))
        assert "out of traffic" in scene.note(view, "block-traffic")
        note = scene.note(view, "allow-traffic")
        assert "passes on this host; " in note
        assert "Consul's servers" in note  # their silence, or a refused connection
        assert "takes traffic" not in note
        assert scene.host.deploy(scene.bundle("3-bad"))["outcome"] == "rolled_back"
        assert (scene.version(), scene.maintenance()) == ("2", None)


def test_a_wrong_token(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    good = scene.token_file.read_text()
    scene.token_file.write_text("11111111-2222-3333-4444-555555555555")
    view = scene.host.deploy_good(scene.bundle("2"))
    for step in ("block-traffic", "allow-traffic"):
        note = scene.note(view, step)
        assert "Consul does not know the token" in note
        assert f"Write a token that exists into {scene.token_file}" in note
    assert scene.host.serving() == "2"
    assert scene.version() == "1"
    assert "Consul does not know the token" in told(scene)["problem"]
    scene.token_file.write_text(good)
    start_round(scene)
    wait_until(lambda: scene.version() == "2")


def test_a_wrong_token_with_environment_and_run_once(scene: Scene) -> None:
    """Values of before stay; what must run once does not run unlocked; a right token mends it."""
    environment = f"prefix: {PREFIX}, file: {scene.base}/etc/env, on_change: none"

    def bundle(version: str, **hooks: str) -> Path:
        return scene.bundle(version, environment=environment, hooks=hooks)

    scene.server.put_kv(f"{PREFIX}/A", b"1")
    scene.host.deploy_good(bundle("1"))
    good = scene.token_file.read_text()
    scene.token_file.write_text("11111111-2222-3333-4444-555555555555")
    scene.server.put_kv(f"{PREFIX}/A", b"2")
    view = scene.host.deploy_good(bundle("2"))
    log = scene.host.client.stream(f"/v1/deployments/{view['id']}/log")
    assert any("the values of index" in each["line"] for each in log)
    assert scene.environment() == {"A": '"1"'}
    [application] = scene.host.ask("GET", "/v1/status")["applications"]
    assert "does not know the token" in application["environment"]["files"][0]["problem"]

    once = f"#!/bin/sh\nexec run-once migrate --wait 30 -- touch {scene.base}/here\n"
    view = scene.host.deploy(bundle("3", BeforeInstall=once))
    assert view["outcome"] == "rolled_back"
    assert any("does not know the token" in line for line in view["failure"]["evidence"])
    assert not (scene.base / "here").exists()
    assert scene.host.serving() == "2"

    scene.token_file.write_text(good)
    wait_until(lambda: scene.environment() == {"A": '"2"'}, 40)
    start_round(scene)
    wait_until(lambda: (scene.version(), scene.maintenance()) == ("2", None))


def test_a_token_file_that_is_missing(scene: Scene) -> None:
    scene.host.stop()
    kept = scene.token_file.rename(scene.base / "kept")
    scene.host.start()
    view = scene.host.deploy_good(scene.bundle("1"))
    assert str(scene.token_file) in scene.note(view, "allow-traffic")
    assert str(scene.token_file) in wait_until(lambda: told(scene)["problem"])
    kept.rename(scene.token_file)
    start_round(scene)
    wait_until(lambda: scene.version() == "1")


def test_a_token_that_may_see_nothing_removes_and_changes_nothing(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    before = scene.registered()
    blind = consul_server.make_token(scene.server, "blind", 'node_prefix "" { policy = "read" }')
    scene.token_file.write_text(blind)
    start_round(scene)
    assert "denies" in wait_until(lambda: told(scene)["problem"])
    assert scene.registered() == before


def test_a_consul_that_has_forgotten_everything(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    scene.consul.ask("PUT", f"/v1/agent/service/deregister/{NAME}", b"")
    scene.wait_for_traffic(taken=False)
    start_round(scene)
    wait_until(lambda: scene.version() == "1")
    scene.wait_for_traffic()


def test_what_was_left_behind_is_cleared_and_only_that(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    allowed = 'service_prefix "" { policy = "write" }\nagent_prefix "" { policy = "write" }'
    scene.token_file.write_text(consul_server.make_token(scene.server, "all", allowed))
    for name, meta in (("old", {"deploy-agent": "service"}), ("mine", {})):
        body = {"Name": name, "Meta": meta}
        scene.consul.ask("PUT", "/v1/agent/service/register", body)
    other = {"Name": "others", "Meta": {"deploy-agent": "another"}}
    scene.consul.ask("PUT", "/v1/agent/service/register", other)
    reason = DEAD.replace(" ", "%20")
    scene.consul.ask(
        "PUT", f"/v1/agent/service/maintenance/{NAME}?enable=true&reason={reason}", b""
    )
    assert scene.maintenance() == DEAD
    start_round(scene)
    wait_until(lambda: scene.maintenance() is None)
    wait_until(lambda: scene.registered("old") is None)
    assert scene.registered("mine") is not None
    assert scene.registered("others") is not None


def test_drain_outlives_deployments_and_restarts(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    answer = scene.host.ask("PUT", "/v1/drain", {"reason": "new disk"})
    assert answer["problem"] == ""
    assert (answer["drain"]["application"], answer["drain"]["until"]) == ("service", None)
    assert str(scene.maintenance()).endswith(": new disk")
    assert not scene.takes_traffic()

    view = scene.host.deploy_good(scene.bundle("2"))
    assert "stays out of traffic" in scene.note(view, "allow-traffic")
    assert str(scene.maintenance()).endswith(": new disk")
    scene.host.deploy(scene.bundle("3-bad"))
    start_round(scene)
    found = told(scene)
    assert found["drain"]["reason"] == "new disk"
    assert found["services"][0]["status"] == "maintenance"
    assert (scene.version(), str(scene.maintenance())[-8:]) == ("2", "new disk")

    scene.consul.ask("PUT", f"/v1/agent/service/deregister/{NAME}", b"")
    start_round(scene)
    wait_until(lambda: str(scene.maintenance()).endswith("new disk"))

    assert scene.host.ask("DELETE", "/v1/drain", {"application": "service"})["problem"] == ""
    assert scene.maintenance() is None
    assert told(scene)["drain"] is None
    scene.wait_for_traffic()


def test_drained_while_a_deployment_is_under_way(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    wait = waiting(scene)
    deployment = scene.host.request(scene.bundle("2", hooks={"BeforeInstall": wait}))
    scene.host.wait_for_file(scene.base / "there")
    assert "under way" in scene.host.ask("PUT", "/v1/drain", {"reason": "disk"})["problem"]
    (scene.base / "go").touch()
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "succeeded"
    assert scene.maintenance() is not None
    scene.host.ask("DELETE", "/v1/drain")
    wait_until(lambda: scene.maintenance() is None)


def test_a_drain_ends_by_itself(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    scene.host.ask("PUT", "/v1/drain", {"reason": "disk", "for_seconds": 0.5})
    assert scene.maintenance() is not None
    wait_until(lambda: scene.maintenance() is None)
    assert told(scene)["drain"] is None


def test_nothing_to_drain(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1", consul=""))
    status, answer = scene.host.client.request("PUT", "/v1/drain", {"reason": "disk"})
    assert (status, answer["error"]["code"]) == (404, "not-found")
    assert told(scene) is None


def rotate_token(scene: Scene, name: str) -> None:
    """Another token for the agent; the one that it had is deleted."""
    old = scene.token_file.read_text()
    scene.token_file.write_text(consul_server.make_token(scene.server, name))
    accessor = scene.server.ask("GET", "/v1/acl/token/self", token=old)["AccessorID"]
    scene.server.ask("DELETE", f"/v1/acl/token/{accessor}")


def test_a_token_that_is_replaced_and_deleted(scene: Scene) -> None:
    """Consul tells its servers of a service with the token that it was registered with."""
    scene.token_file.write_text(consul_server.make_token(scene.server, "rotated"))
    scene.host.deploy_good(scene.bundle("1"))
    scene.wait_for_traffic()
    rotate_token(scene, "rotated-once")
    scene.host.ask("DELETE", "/v1/drain")  # which looks at Consul at once
    (scene.base / "run" / "serving").write_text("1-bad")
    wait_until(lambda: scene.local_status() == "critical")
    scene.wait_for_traffic(taken=False)


def test_a_token_that_is_replaced_while_drained(scene: Scene) -> None:
    scene.token_file.write_text(consul_server.make_token(scene.server, "drained"))
    scene.host.deploy_good(scene.bundle("1"))
    scene.wait_for_traffic()
    scene.host.ask("PUT", "/v1/drain", {"reason": "disk"})
    scene.wait_for_traffic(taken=False)
    rotate_token(scene, "drained-once")
    start_round(scene)
    wait_until(lambda: told(scene)["services"][0]["status"] == "maintenance")
    assert not scene.takes_traffic()
    assert scene.host.ask("DELETE", "/v1/drain")["problem"] == ""
    scene.wait_for_traffic()


def test_a_restart_of_the_agent_changes_nothing_in_the_catalogue(scene: Scene) -> None:
    """It registers its services again, as it does not know by which token they were."""
    scene.host.deploy_good(scene.bundle("1"))
    scene.wait_for_traffic()
    before = indexes(scene)
    start_round(scene)
    scene.host.ask("DELETE", "/v1/drain")  # which waits until it has looked at Consul
    wait_until(lambda: scene.local_status() == "passing")
    assert scene.takes_traffic()
    assert indexes(scene) == before


def indexes(scene: Scene) -> list[int]:
    """When the servers last heard of a change of the service, and of each of its checks."""
    found = scene.server.ask("GET", f"/v1/health/service/{NAME}")
    [here] = [each for each in found if each["Node"]["Node"] == scene.consul.name]
    return [each["ModifyIndex"] for each in (here["Service"], *here["Checks"])]
