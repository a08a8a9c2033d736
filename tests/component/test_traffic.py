"""Deployments with a real Consul: what is in its catalogue, and when; ACLs on, least policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import consul_server, traffic_scene
from tests.consul_server import ConsulAgent
from tests.traffic_scene import NAME, Scene
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

CHECK = f"service:{NAME}:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with traffic_scene.acl_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Of the certificates of Consul's API; None where that is in the clear."""
    is_tls = getattr(request, "param", False)
    return consul_server.make_authority(tmp_path / "tls") if is_tls else None


@pytest.fixture
def scene(state_dir: Path, server: ConsulAgent, authority: Path | None) -> Iterator[Scene]:
    with traffic_scene.scene(state_dir, server, authority=authority) as scene:
        yield scene


@pytest.mark.parametrize("authority", [False, True], indirect=True, ids=["http", "https"])
def test_the_catalogue_over_a_good_a_better_and_a_broken_deployment(scene: Scene) -> None:
    first = scene.host.deploy_good(scene.bundle("1"))
    found = scene.registered()
    assert found is not None
    assert (found["Port"], found["Tags"]) == (8080, ["v1"])
    meta = found["Meta"]
    assert meta["deploy-agent"] == "service"
    assert (meta["version"], meta["deployment_id"]) == ("1", first["id"])
    assert meta["revision"] == first["digest"]
    assert scene.checks() == {f"service:{NAME}:1": "passing"}
    scene.wait_for_traffic()

    scene.host.deploy_good(scene.bundle("2"))
    assert scene.version() == "2"
    assert scene.checks() == {f"service:{NAME}:1": "passing"}

    before = scene.registered()
    broken = scene.host.deploy(scene.bundle("3-bad"))
    assert broken["outcome"] == "rolled_back"
    assert broken["failure"]["code"] == "consul-critical"
    assert any("critical" in line for line in broken["failure"]["evidence"])
    assert scene.registered() == before
    assert scene.maintenance() is None
    scene.wait_for_traffic()
    assert scene.host.serving() == "2"


def test_traffic_ends_before_the_stop_and_comes_back_after_the_proof(scene: Scene) -> None:
    seen = scene.script(traffic_scene.SEEN)
    events = ("BeforeBlockTraffic", "AfterBlockTraffic", "BeforeAllowTraffic", "AfterAllowTraffic")
    files = {f"scripts/{event}": seen.replace("{base}", str(scene.base)) for event in events}
    scripts = "".join(f"  {event}:\n    - location: scripts/{event}\n" for event in events)
    for version in ("1", "2"):
        bundle = scene.bundle(version, files=files, hooks={"ValidateService": seen})
        put_hooks(bundle, scripts)
        scene.host.deploy_good(bundle)
    told = scene.host.events()
    assert told[told.index("BeforeBlockTraffic 2 open") :] == [
        "BeforeBlockTraffic 2 open",
        "AfterBlockTraffic 2 blocked",
        "ApplicationStop 2 blocked",
        "BeforeInstall 2",
        "AfterInstall 2",
        "start 2 ApplicationStart",
        "ValidateService 2 blocked",
        "BeforeAllowTraffic 2 blocked",
        "AfterAllowTraffic 2 open",
    ]


def put_hooks(bundle: Path, scripts: str) -> None:
    """Add events to a bundle's appspec."""
    traffic_scene.change_appspec(bundle, "hooks:\n", f"hooks:\n{scripts}")


def test_the_reason_names_deployment_and_version(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    wait = f"#!/bin/sh\nwhile [ ! -e {scene.base}/go ]; do sleep 0.05; done\n"
    deployment = scene.host.request(scene.bundle("2", hooks={"BeforeInstall": wait}))
    reason = wait_until(scene.maintenance)
    assert deployment in reason
    assert reason.endswith(" of 2")
    (scene.base / "go").touch()
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "succeeded"
    assert scene.maintenance() is None


def test_a_service_without_a_check_is_let_in_when_it_is_validated(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1", consul=f"name: {NAME}, drain: 0"))
    assert (scene.version(), scene.checks()) == ("1", {})
    scene.wait_for_traffic()
    failing = {"ValidateService": "#!/bin/sh\nexit 1\n"}
    bundle = scene.bundle("2", consul=f"name: {NAME}, drain: 0", hooks=failing)
    assert scene.host.deploy(bundle)["outcome"] == "rolled_back"
    assert (scene.version(), scene.maintenance()) == ("1", None)


def test_a_service_that_tells_consul_itself(scene: Scene) -> None:
    consul = f"name: {NAME}, check: {{ttl: 1m}}, within: 20s"
    deployment = scene.host.request(scene.bundle("1", consul=consul))
    wait_until(lambda: scene.checks() == {CHECK: "critical"}, 20)
    tell(scene, deployment)


def tell(scene: Scene, deployment: str) -> None:
    """What a service with a ttl does, until it is let in."""

    def told() -> bool:
        if CHECK in scene.checks():
            scene.consul.ask("PUT", f"/v1/agent/check/pass/{CHECK}", b"")
        return scene.host.deployment(deployment)["outcome"] == "succeeded"

    wait_until(told, 20)


def test_a_hook_that_fails_after_the_traffic_is_back(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    before = scene.registered()
    bundle = scene.bundle("2", files={"scripts/after": "#!/bin/sh\nexit 1\n"})
    put_hooks(bundle, "  AfterAllowTraffic:\n    - location: scripts/after\n")
    view = scene.host.deploy(bundle)
    assert (view["outcome"], view["failure"]["code"]) == ("rolled_back", "hook-failed")
    assert "ApplicationStop 2 blocked" in scene.host.events()[-3:]
    assert (scene.registered(), scene.maintenance()) == (before, None)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_ended_while_it_drains(scene: Scene, how: str) -> None:
    """A kill is undone; after an orderly end the next agent goes on."""
    consul = f"name: {NAME}, drain: 3s"
    scene.host.deploy_good(scene.bundle("1", consul=consul))
    scene.host.request(scene.bundle("2", consul=consul))
    wait_until(scene.maintenance)
    if how == "kill":
        scene.host.kill()
    else:
        scene.host.stop()
    assert scene.maintenance() is not None
    assert scene.host.serving() == "1"
    scene.host.start()
    view = scene.host.wait_for_outcome()
    assert view["outcome"] == {"kill": "rolled_back", "stop": "succeeded"}[how]
    assert scene.maintenance() is None
    assert scene.version() == scene.host.serving()


def test_a_first_revision_that_is_undone_was_never_passing_and_leaves_nothing(
    scene: Scene,
) -> None:
    deployment = scene.host.request(scene.bundle("1-bad"))
    seen = set()
    while scene.host.deployment(deployment)["outcome"] is None:
        seen.add(scene.local_status())
    assert "critical" in seen
    assert seen <= {"", "critical", "maintenance"}
    assert scene.host.wait_for_outcome(deployment)["outcome"] == "rolled_back"
    assert scene.registered() is None
    assert scene.checks() == {}


def test_a_service_that_a_revision_drops(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    failing = scene.bundle("2", consul="", files={"scripts/after": "#!/bin/sh\nexit 1\n"})
    put_hooks(failing, "  AfterAllowTraffic:\n    - location: scripts/after\n")
    view = scene.host.deploy(failing)
    assert view["outcome"] == "rolled_back"
    log = scene.host.client.stream(f"/v1/deployments/{view['id']}/log")
    assert any("this revision has it no more" in each["line"] for each in log)
    assert (scene.version(), scene.maintenance()) == ("1", None)
    allowed = f'{consul_server.LEAST_POLICY}\nservice "other" {{ policy = "write" }}'
    scene.token_file.write_text(consul_server.make_token(scene.server, "other", allowed))
    other = f"name: other, check: {{http: '{scene.service.url}', interval: 200ms}}"
    scene.host.deploy_good(scene.bundle("3", consul=other))
    assert scene.registered() is None
    assert scene.version("other") == "3"


def test_a_registration_of_somebody_else_is_left(scene: Scene) -> None:
    body = {"ID": "by-hand", "Name": NAME, "Port": 8080, "Tags": ["mine"]}
    scene.consul.ask("PUT", "/v1/agent/service/register", body)
    view = scene.host.deploy_good(scene.bundle("1"))
    assert "by-hand" in scene.note(view, "allow-traffic")
    assert scene.registered() is None
    view = scene.host.deploy_good(scene.bundle("2"))
    assert "by-hand: out of traffic" in scene.note(view, "block-traffic")
    found = scene.registered("by-hand")
    assert found is not None
    assert found["Tags"] == ["mine"]
    assert scene.maintenance("by-hand") is None
    assert (scene.base / "events").read_text().count("ApplicationStop 2 blocked") == 1


def test_maintenance_of_a_person_is_not_ended(scene: Scene) -> None:
    scene.host.deploy_good(scene.bundle("1"))
    scene.consul.ask("PUT", f"/v1/agent/service/maintenance/{NAME}?enable=true&reason=disk", b"")
    view = scene.host.deploy_good(scene.bundle("2"))
    assert "stays out of traffic: disk" in scene.note(view, "allow-traffic")
    assert (scene.version(), scene.maintenance()) == ("2", "disk")
    assert scene.host.deploy(scene.bundle("3-bad"))["outcome"] == "rolled_back"
    assert (scene.version(), scene.maintenance()) == ("2", "disk")


HCL = """# as people write it
service {
  name = "%s"  // and no id
  port = %d
  token = "%s"
  check { http = "%s", interval = "200ms" }
}
"""


def definition(scene: Scene, port: int, suffix: str, token: str | None = None) -> dict[str, str]:
    url, token = scene.service.url, scene.server.token if token is None else token
    check = {"http": url, "interval": "200ms"}
    service = {"name": NAME, "port": port, "check": check, "token": token}
    text = json.dumps({"service": service}) if suffix == "json" else HCL % (NAME, port, token, url)
    return {f"consul/{NAME}.{suffix}": text}


def file_bundle(
    scene: Scene, version: str, port: int, suffix: str = "json", **more: dict[str, str]
) -> Path:
    """As the bundles of those who never heard of `services`: a definition for Consul's folder."""
    files = definition(scene, port, suffix) if port else {}
    bundle = scene.bundle(version, consul="", files=files, **more)
    if port:
        install_definition(scene, bundle)
    return bundle


def install_definition(scene: Scene, bundle: Path) -> None:
    """Have its folder `consul` installed where Consul reads."""
    mapping = f"  - source: consul\n    destination: {scene.consul.services_dir}\n"
    traffic_scene.change_appspec(bundle, "files:\n", f"files:\n{mapping}")


@pytest.mark.parametrize("suffix", ["json", "hcl"])
def test_definitions_that_bundles_install_in_consuls_folder(scene: Scene, suffix: str) -> None:
    scene.host.deploy_good(file_bundle(scene, "1", 8080, suffix))
    found = scene.registered()
    assert found is not None
    assert found["Port"] == 8080
    assert scene.checks() == {f"service:{NAME}": "passing"}

    failing = {"ValidateService": "#!/bin/sh\nexit 1\n"}
    view = scene.host.deploy(file_bundle(scene, "2", 9090, suffix, hooks=failing))
    assert view["outcome"] == "rolled_back"
    found = scene.registered()
    assert found is not None
    assert (found["Port"], scene.maintenance()) == (8080, None)

    scene.host.deploy_good(file_bundle(scene, "3", 9090, suffix))
    found = scene.registered()
    assert found is not None
    assert (found["Port"], scene.maintenance()) == (9090, None)
    assert "ApplicationStop 3 blocked" in scene.host.events()

    scene.host.deploy_good(file_bundle(scene, "4", 0))
    assert scene.registered() is None


def test_what_consuls_servers_do_not_know_gets_no_traffic_and_that_is_said(scene: Scene) -> None:
    """A definition without a token: the local agent has it and passes it, and nobody else."""
    bundle = scene.bundle("1", consul="", files=definition(scene, 8080, "json", token=""))
    install_definition(scene, bundle)
    view = scene.host.deploy_good(bundle)
    note = scene.note(view, "allow-traffic")
    assert "it gets no traffic yet: Consul's servers do not know it" in note
    assert "agentctl doctor" in note
    assert "takes traffic" not in note
    assert scene.checks() == {f"service:{NAME}": "passing"}
    assert not scene.takes_traffic()


def test_a_definition_that_is_not_understood_is_told(scene: Scene) -> None:
    """Consul reads it, and the agent does not: it is in the catalogue, and in no maintenance."""
    odd = HCL % (NAME, 8080, scene.server.token, scene.service.url)
    odd = odd.replace(" {\n", ' {\n  meta { odd = "${a}" }\n', 1)
    bundle = scene.bundle("1", consul="", files={"consul/odd.hcl": odd})
    install_definition(scene, bundle)
    view = scene.host.deploy_good(bundle)
    assert "odd.hcl: which services it defines is not understood" in scene.note(
        view, "allow-traffic"
    )
    assert scene.registered() is not None


def test_a_reload_that_the_policy_denies_fails_nothing(scene: Scene) -> None:
    rules = consul_server.LEAST_POLICY.replace(
        'agent_prefix "" { policy = "write" }', 'agent_prefix "" { policy = "read" }'
    )
    scene.token_file.write_text(consul_server.make_token(scene.server, "no-reload", rules))
    view = scene.host.deploy_good(file_bundle(scene, "1", 8080))
    note = scene.note(view, "allow-traffic")
    assert "cannot reload the Consul agent" in note
    assert "Consul does not know it" in note
    assert scene.registered() is None


def test_an_agent_without_consul_says_that_it_registers_nothing(scene: Scene) -> None:
    scene.host.stop()
    text = scene.host.config.read_text()
    scene.host.config.write_text(text[: text.index("consul:")])
    scene.host.start()
    view = scene.host.deploy_good(scene.bundle("1"))
    assert "not registered, as agent.yaml has no section consul" in scene.note(
        view, "allow-traffic"
    )
    status, answer = scene.host.client.request("PUT", "/v1/drain", {"reason": "disk"})
    assert (status, answer["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize("row", ["block-traffic", "allow-traffic"])
@pytest.mark.parametrize("at", ["do-before", "do-after", "undo-before", "undo-after"])
def test_killed_in_it_and_started_again(scene: Scene, row: str, at: str) -> None:
    host = scene.host
    host.deploy_good(scene.bundle("1"))
    host.stop()
    faults = [{"row": row, "at": at, "how": "kill"}]
    if at.startswith("undo"):
        faults.append({"row": "allow-traffic", "at": "do-after", "how": "fail"})
    host.start(*faults)
    host.request(scene.bundle("2"))
    host.wait_for_end()
    host.start()
    view = host.wait_for_outcome()
    assert view["outcome"] == "rolled_back", view["failure"]
    assert host.serving() == "1"
    assert (scene.version(), scene.maintenance()) == ("1", None)
    scene.wait_for_traffic()


def test_a_revision_that_does_not_come_back_stays_out_of_traffic(scene: Scene) -> None:
    """Its check may say yet what it said before the stop."""
    scene.host.deploy_good(scene.bundle("1", hooks={"ApplicationStart": scene.starts_once()}))
    failing = {"ValidateService": "#!/bin/sh\nexit 1\n"}
    view = scene.host.deploy(scene.bundle("2", hooks=failing))
    assert view["outcome"] == "inconsistent"
    assert view["id"] in str(scene.maintenance())
    assert "stays out of traffic" in scene.log(view)
    scene.host.deploy_good(scene.bundle("3"))
    assert (scene.version(), scene.maintenance()) == ("3", None)


@pytest.mark.parametrize("status", ["", "status"])
def test_what_its_status_does_not_prove_its_check_has_to(scene: Scene, status: str) -> None:
    """After an undo; a check that is not run yet must not pass for what it said before."""
    consul = f"name: {NAME}, check: {{ttl: 1m}}, within: 20s"
    bundles = {
        version: scene.bundle(version, consul=consul, hooks=hooks)
        for version, hooks in (("1", {}), ("2", {"ValidateService": "#!/bin/sh\nexit 1\n"}))
    }
    if status:
        proof = (
            f"  - status: {{url: '{scene.service.url}', version: 'off', stable_for: 0}}\n    consul"
        )
        for each in bundles.values():
            traffic_scene.change_appspec(each, "  - consul", proof)
    tell(scene, scene.host.request(bundles["1"]))
    assert scene.host.deploy(bundles["2"])["outcome"] == "rolled_back"
    assert scene.maintenance() is None
    assert scene.checks() == {CHECK: "passing" if status else "critical"}
