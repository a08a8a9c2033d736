"""The deployment group of a host from a tag of its EC2 instance, also before it has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError
from agent.model.settings import Settings
from agent.sources import groups
from agent.sources.groups import HostGroup
from tests.imds_server import Imds, metadata_service


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imds]:
    with metadata_service() as (metadata, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield metadata


@pytest.fixture
def settings(state_dir: Path) -> Settings:
    return Settings(state_dir, state_dir, group="", group_tag="DeploymentGroup")


async def test_tag_names_the_group(metadata: Imds, settings: Settings) -> None:
    assert await HostGroup(settings).name() == "canary"


async def test_group_of_the_configuration_asks_nobody(state_dir: Path) -> None:
    assert await HostGroup(Settings(state_dir, state_dir, group="blue")).name() == "blue"


async def test_tag_that_comes_late_is_waited_for(metadata: Imds, settings: Settings) -> None:
    metadata.tags = {"Name": "web 1"}
    group = HostGroup(settings)
    with pytest.raises(AgentError, match="it has no such tag"):
        await group.name()
    metadata.tags = {"DeploymentGroup": "canary"}
    assert await group.name() == "canary"


async def test_tag_that_changes_is_seen(
    metadata: Imds, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = HostGroup(settings)
    assert await group.name() == "canary"
    metadata.tags = {"DeploymentGroup": "blue"}
    assert await group.name() == "canary"  # not asked yet
    monkeypatch.setattr(groups, "_ASK_AGAIN_SECONDS", 0.0)
    assert await group.name() == "blue"


async def test_group_is_kept_while_nobody_answers(metadata: Imds, settings: Settings) -> None:
    assert await HostGroup(settings).name() == "canary"
    metadata.has_v2 = False
    assert await HostGroup(settings).name() == "canary"


async def test_region(metadata: Imds, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert await HostGroup(settings).region() == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert await HostGroup(settings).region() == ""
