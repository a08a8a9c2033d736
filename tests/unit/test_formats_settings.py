"""agent.yaml and conf.d to Settings, with every problem of all files at its place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from agent.formats import schema, settings, traps
from agent.model.appspec import LifecycleEvent
from agent.model.deployment import StepName
from agent.model.errors import AgentError, Code
from agent.model.settings import (
    ConsulSettings,
    HookSettings,
    Leftover,
    Limits,
    Retention,
    Sandbox,
    Settings,
    SourceSettings,
    SourceType,
    StopFailure,
)

DEFAULT_CONFIG = Path(__file__).parents[2] / "packaging" / "agent.yaml"


def load(path: Path, text: str = "") -> Settings:
    if text:
        path.write_text(text)
    return settings.load_settings(path, user_defaults=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "agent.yaml"


def test_everything(config: Path) -> None:
    text = """
state_dir: /srv/state
run_dir: /srv/run
deployment_group: web
api_group: ops
poll_interval: 500ms
sources:
  - {type: directory, path: /srv/drop, application: shop, deployment_group: blue}
  - {type: directory, path: /srv/all}
stop_failure: fail
starts: 3
timeouts: {fetch: 10m, before-install: 90}
shutdown: 5s
limits: {bundle: 1G, unpacked: 1.5G, members: 10, depth: 8, ratio: 50, free: 0, free_inodes: 5}
hooks:
  {grace: 0, leftover: kill, log: 64K, retry: 1s, memory_max: 1G, processes_max: 99, cpu_weight: 50,
   sandbox: strict}
retention: {releases: 1, bundles: 0, deployments: 9, size: 5G, age: 2d}
consul:
  {address: "https://consul.example:8501", token_file: consul-token, ca_file: /tls/ca,
   cert_file: /tls/c, key_file: /tls/k, datacenter: eu, prefix: shop/deploy}
x-note: anything
"""
    assert load(config, text) == Settings(
        state_dir=Path("/srv/state"),
        run_dir=Path("/srv/run"),
        sources=(
            SourceSettings(SourceType.DIRECTORY, "/srv/drop", "shop", "blue", 0.5),
            SourceSettings(SourceType.DIRECTORY, "/srv/all", "", "web", 0.5),
        ),
        poll_seconds=0.5,
        group="web",
        api_group="ops",
        stop_failure=StopFailure.FAIL,
        starts=3,
        step_timeouts={"fetch": 600.0, "before-install": 90.0},
        shutdown_seconds=5.0,
        limits=Limits(2**30, 3 * 2**29, 10, 8, 50, 0, 5),
        hooks=HookSettings(0.0, Leftover.KILL, 65536, 1.0, 2**30, 99, 50, Sandbox.STRICT),
        retention=Retention(1, 0, 9, 5 * 2**30, 172800.0),
        consul=ConsulSettings(
            "https://consul.example:8501",
            "consul-token",
            "/tls/ca",
            "/tls/c",
            "/tls/k",
            "eu",
            "shop/deploy",
        ),
        keys_dir=config.parent / "keys.d",
    )


SYSTEM = Settings(Path("/var/lib/deploy-agent"), Path("/run/deploy-agent"))


def beside(config: Path) -> Settings:
    """The defaults of a configuration that lies elsewhere."""
    return replace(SYSTEM, keys_dir=config.parent / "keys.d")


def test_an_empty_file_gives_the_defaults(config: Path) -> None:
    config.write_text("# nothing\n")
    assert load(config) == beside(config)


def test_the_shipped_file_gives_the_defaults_commented_out_or_not(config: Path) -> None:
    assert load(DEFAULT_CONFIG) == beside(DEFAULT_CONFIG)
    text = DEFAULT_CONFIG.read_text()
    uncommented = re.sub(r"^#(?=[a-z ])(?! )", "", text, flags=re.MULTILINE)
    uncommented = re.sub(r"^#(?=  )", "", uncommented, flags=re.MULTILINE)
    found = load(config, uncommented)
    assert found.sources == (
        SourceSettings(SourceType.DIRECTORY, "/srv/deploy", group="default", poll_seconds=2.0),
        SourceSettings(
            SourceType.S3,
            application="shop",
            group="default",
            url="s3://bucket/prefix",
            region="eu-west-1",
        ),
    )
    assert found.step_timeouts == {"fetch": 3600.0}
    assert found.consul == ConsulSettings()
    assert {key for key in schema.schema("agent")["properties"] if f"\n{key}:" in uncommented} == (
        set(schema.schema("agent")["properties"])
    )
    config.write_text(
        re.sub(r"^(sources|timeouts|consul):\n(?:  .*\n)+", "", uncommented, flags=re.M)
    )
    assert load(config) == SYSTEM


def test_consul_is_used_only_where_it_is_named(config: Path) -> None:
    assert load(config, "consul: {}") == replace(beside(config), consul=ConsulSettings())
    for wrong in (
        "address: 127.0.0.1:8500",
        "address: http://me:secret@127.0.0.1:8500",
        "address: unix://run/consul.sock",
        "token_file: ../token",
        "prefix: /deploy",
        "prefix: deploy/",
        "token: 8d2a",
    ):
        with pytest.raises(AgentError) as caught:
            load(config, f"consul: {{{wrong}}}")
        assert caught.value.code is Code.CONFIG_INVALID, wrong


def test_conf_d_is_merged_in_the_order_of_names(config: Path) -> None:
    parts = config.parent / "conf.d"
    parts.mkdir()
    (parts / "20-late.yml").write_text("starts: 9\nlimits: {depth: 5}\n")
    (parts / "10-early.yaml").write_text(
        "starts: 8\nsources: [{type: directory, path: /b}]\nlimits: {ratio: 7}\n"
    )
    (parts / "30.yaml.dpkg-old").write_text("starts: nonsense\n")
    (parts / ".31.yaml").write_text("starts: nonsense\n")
    text = "starts: 7\nsources: [{type: directory, path: /a}]\nlimits: {depth: 4, members: 3}\n"
    found = load(config, text)
    assert found.starts == 9
    assert found.limits == Limits(depth=5, ratio=7, members=3)
    assert [source.path for source in found.sources] == ["/b"]


def test_every_problem_of_every_file_at_once(config: Path) -> None:
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d" / "a.yaml").write_text("starts: 1\nstarts: 2\n")
    text = """stats: 3
poll_interval: often
sources:
  - {type: directori, path: srv}
  - {type: directory}
timeouts: {fetsch: 1m, plan: 0s}
limits: {bundle: -1, depth: 0, members: "5", free: 64MB, unpacked: 0K}
retention: [3]
hooks: {leftover: yes}
"""
    with pytest.raises(AgentError, match="it has 15 errors") as caught:
        load(config, text)
    assert caught.value.code is Code.CONFIG_INVALID
    found = [detail.removeprefix(f"{config.parent}/") for detail in caught.value.details]
    assert "\n".join(found) + "\n" == EXPECTED


EXPECTED = """\
agent.yaml:1:1: error: stats: unknown key (did you mean starts?)
agent.yaml:2:16: error: poll_interval: must be a duration such as 30s, 5m or 1h, is 'often'
agent.yaml:4:12: error: type: must be directory, http or s3, is 'directori' (did you mean\
 directory?)
agent.yaml:4:29: error: path: must be an absolute path, is 'srv'
agent.yaml:5:5: error: sources, entry 2: has no path, which a source of type directory needs
agent.yaml:6:12: error: fetsch: unknown step (did you mean fetch?)
agent.yaml:6:30: error: plan: must be a duration such as 30s, 5m or 1h, is '0s'
agent.yaml:7:18: error: bundle: must be a size such as 64M or 20G, is -1
agent.yaml:7:29: error: depth: must be at least 1, is 0
agent.yaml:7:41: error: members: must be a whole number, is '5'
agent.yaml:7:52: error: free: must be a size such as 64M or 20G, is '64MB'
agent.yaml:7:68: error: unpacked: must be a size such as 64M or 20G, is '0K'
agent.yaml:8:12: error: retention: must be a mapping (keys with values), is a list (take the dashes\
 away)
agent.yaml:9:19: error: leftover: must be warn or kill, is yes (yes or no in YAML)
conf.d/a.yaml:2:1: error: starts: is there twice, on lines 1 and 2; the last one wins (keep one)
"""


def test_text_that_is_no_yaml(config: Path) -> None:
    with pytest.raises(AgentError, match="it has 1 error") as caught:
        load(config, "starts:1\nlimits: {}\n")
    assert "'starts:1' has no blank after the colon" in caught.value.details[0]
    with pytest.raises(AgentError, match="it has 1 error"):
        load(config, "- starts: 1\n")


@pytest.mark.parametrize(
    ("name", "command"),
    [("agent.yaml", "agentctl lint"), ("of-this-host.yaml", "deploy-agent --check --config")],
)
def test_remedy_names_what_can_check_the_file(tmp_path: Path, name: str, command: str) -> None:
    config = tmp_path / name
    with pytest.raises(AgentError) as caught:
        load(config, "polll: 1\n")
    assert caught.value.remedy.endswith(f"{command} {config}")


def test_a_named_file_must_be_there(config: Path) -> None:
    with pytest.raises(AgentError, match="No such file") as caught:
        load(config)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "--config" in caught.value.remedy


def test_defaults_of_a_plain_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{name}", "relative/is/ignored")
    found = settings.load_settings(None, user_defaults=True)
    assert found.state_dir == tmp_path / ".local/state/deploy-agent"
    assert found.run_dir == tmp_path / ".local/state/deploy-agent/run"
    for name in ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{name}", f"{tmp_path}/{name}")
    (tmp_path / "CONFIG_HOME/deploy-agent").mkdir(parents=True)
    (tmp_path / "CONFIG_HOME/deploy-agent/agent.yaml").write_text("starts: 4\n")
    found = settings.load_settings(None, user_defaults=True)
    assert found.state_dir == tmp_path / "STATE_HOME/deploy-agent"
    assert found.run_dir == tmp_path / "RUNTIME_DIR/deploy-agent"
    assert found.starts == 4


# the schemas


@pytest.mark.parametrize("name", ["appspec", "agent"])
def test_schemas_are_schemas(name: str) -> None:
    Draft7Validator.check_schema(schema.schema(name))


def test_schemas_know_the_words_of_the_model() -> None:
    steps = schema.schema("agent")["properties"]["timeouts"]["properties"]
    assert list(steps) == [step.value for step in StepName]
    events = schema.schema("appspec")["properties"]["hooks"]["properties"]
    assert set(events) == {*LifecycleEvent, *traps.NEVER_RUN}
    assert set(schema.schema("appspec")["properties"]) == set(traps.SECTIONS)


def test_schemas_agree_on_what_a_duration_is() -> None:
    appspec, agent = (schema.schema(name)["definitions"] for name in ("appspec", "agent"))
    for name in ("duration", "durationOrZero"):
        assert appspec[name] == agent[name]


# the docs


def _keys(part: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """Every key that a schema knows, at any depth."""
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    inner = [*part.get("properties", {}).values(), *part.get("allOf", [])]
    inner += [part["items"]] if "items" in part else []
    return set(part.get("properties", {})).union(*(_keys(each, definitions) for each in inner))


@pytest.mark.parametrize(
    ("name", "page"), [("appspec", "appspec.md"), ("agent", "configuration.md")]
)
def test_docs_name_every_key(name: str, page: str) -> None:
    text = (DEFAULT_CONFIG.parents[1] / "docs" / page).read_text()
    written = set(re.findall(r"[A-Za-z_-]+", text))
    steps = {step.value for step in StepName}  # docs/lifecycle.md has those
    whole = schema.schema(name)
    assert _keys(whole, whole["definitions"]) - written - steps - {"type", "path"} == set()
