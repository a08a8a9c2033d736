"""What `agentctl doctor` says of Consul: where it is well, and where one thing is wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import consul_server, traffic_scene
from tests.component import cli_server
from tests.consul_server import LEAST_POLICY, ConsulAgent
from tests.traffic_scene import NAME, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with traffic_scene.acl_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def scene(state_dir: Path, server: ConsulAgent) -> Iterator[Scene]:
    with traffic_scene.scene(state_dir, server) as scene:
        scene.token_file.chmod(0o600)
        yield scene


def say(scene: Scene) -> list[str]:
    """Of Consul: "level: text → remedy"."""
    done = subprocess.run(
        cli_server.command("doctor", "--config", str(scene.host.config), "--json"),
        env=cli_server.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return [
        f"{each['level']}: {each['text']} → {each['remedy']}"
        for each in json.loads(done.stdout)["findings"]
        if each["subject"] == "consul"
    ]


def with_policy(scene: Scene, name: str, rules: str) -> None:
    scene.token_file.write_text(consul_server.make_token(scene.server, name, rules))


def test_a_host_that_is_well_and_then_not(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    scene.wait_for_traffic()
    here = f"Consul 1.8.7, the client {scene.consul.name} of dc1"
    assert say(scene) == [
        f"ok: {scene.consul.url} answers: {here} → ",
        f"ok: the token in {scene.token_file} may do all that this host needs → ",
        f"ok: service: {NAME} is registered, and passing → ",
    ]
    (scene.base / "run" / "serving").write_text("1-bad")
    scene.wait_for_traffic(taken=False)
    assert say(scene)[-1].startswith(f"warning: service: {NAME} is critical: ")
    scene.token_file.chmod(0o644)
    assert say(scene)[0].startswith(f"problem: everybody may read {scene.token_file}")
    scene.token_file.write_text("11111111-2222-3333-4444-555555555555")
    [_, said] = say(scene)
    assert f"Consul does not know the token in {scene.token_file}" in said
    scene.consul.stop()
    [_, said] = say(scene)
    assert "connection refused → See whether the Consul agent runs" in said


def test_rules_that_the_policy_lacks(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    for number, (rule, level, cannot) in enumerate(
        (
            (f'service "{NAME}" {{ policy = "write" }}', "problem", f"register {NAME}"),
            ('node_prefix "" { policy = "read" }', "problem", "see the health"),
            ('session_prefix "" { policy = "write" }', "warning", "hold locks"),
            ('key_prefix "deploy/" { policy = "write" }', "warning", "write the keys of locks"),
            ('agent_prefix "" { policy = "write" }', "problem", "own configuration"),
        )
    ):
        assert rule in LEAST_POLICY
        with_policy(scene, f"lacking-{number}", LEAST_POLICY.replace(rule, ""))
        said = [each for each in say(scene) if not each.startswith("ok")]
        assert said[0].startswith(f"{level}: "), said
        assert cannot in said[0]
        assert rule.partition(" {")[0] in said[0].partition("→")[2]


def test_what_the_servers_do_not_know(scene: Scene) -> None:
    """A definition in a file without a token of its own: Consul keeps it to itself."""
    check = {"http": scene.service.url, "interval": "200ms"}
    entry = {"service": {"name": NAME, "port": 8080, "check": check}}
    files = {f"consul/{NAME}.json": json.dumps(entry)}
    bundle = scene.bundle("1", consul="", files=files)
    mapping = f"  - source: consul\n    destination: {scene.consul.services_dir}\n"
    traffic_scene.change_appspec(bundle, "files:\n", f"files:\n{mapping}")
    scene.host.deploy_good(bundle)
    said = say(scene)[-1]
    assert said.startswith(f"problem: service: {NAME} is passing on this host, and")
    assert "do not know it → " in said
    scene.consul.ask("PUT", f"/v1/agent/service/deregister/{NAME}", b"")
    assert say(scene)[-1].startswith(f"problem: service: {NAME} is not registered → ")


def test_a_consul_that_keeps_nothing_and_one_that_is_not_used(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    text = scene.host.config.read_text()
    scene.host.config.write_text(text.replace(scene.consul.url, scene.server.url))
    assert any(each.startswith("warning: it has no data_dir") for each in say(scene))
    scene.host.config.write_text(text[: text.index("consul:")])
    [said] = say(scene)
    assert said.startswith(f"warning: service: {NAME} is not registered, as agent.yaml has no")


def test_servers_that_are_gone(state_dir: Path) -> None:
    (state_dir / "host").mkdir()
    with (
        traffic_scene.acl_server(state_dir / "server") as server,
        traffic_scene.scene(state_dir / "host", server) as scene,
    ):
        scene.token_file.chmod(0o600)
        server.stop()
        answers, leader = say(scene)
    assert answers.startswith(f"ok: {scene.consul.url} answers")
    assert leader.startswith("problem: cannot read Consul's leader: Consul says 500")
