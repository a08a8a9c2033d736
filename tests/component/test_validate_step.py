"""The validate step: the revision's own hooks first, then its status endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.hooks.group import GroupBackend
from agent.hooks.runner import HookRunner
from agent.model.deployment import Deployment, Revision, Status, Trigger
from agent.model.errors import AgentError, Code
from agent.model.release import Layout
from agent.model.settings import Settings
from agent.sources.bundles import Bundles
from agent.steps import validate
from agent.steps.context import Context, Keep
from agent.store.installed import InstalledFiles
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient
from tests.status_service import GOOD, json_answer, status_service

APPSPEC = """\
version: 0.0
os: linux
hooks:
  ValidateService:
    - location: validate.sh
      timeout: 5
services:
"""
SERVICE = "  - status: {{url: '{url}', within: 1s, stable_for: 0s}}\n"


async def nothing(_: Deployment) -> None:
    pass


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def run_step(state_dir: Path, client: HttpClient, urls: list[str], script: str) -> str:
    """Validate a release of version 1.216 with this hook and these status endpoints."""
    return (await validate.do(prepare(state_dir, client, urls, script))).note


def prepare(state_dir: Path, client: HttpClient, urls: list[str], script: str) -> Context:
    layout = Layout(state_dir)
    settings = Settings(state_dir=state_dir, run_dir=state_dir)
    revision = Revision("go-service", "default", "1.216", "go-service.zip", digest="00")
    deployment = Deployment(
        "d-1", revision, "d-1", Trigger.SOURCE, "test", Status.DOING, created_at=0.0
    )
    release = layout.release("d-1", revision)
    release.tree.mkdir(parents=True)
    layout.work_dir("d-1").mkdir(parents=True)
    services = "".join(SERVICE.format(url=url) for url in urls)
    (release.tree / "appspec.yml").write_text(APPSPEC + services)
    (release.tree / "validate.sh").write_text(f"#!/bin/sh\n{script}\n")
    return Context(
        deployment=deployment,
        settings=settings,
        release=release,
        current=None,
        work_dir=layout.work_dir("d-1"),
        log=DeploymentLog(layout.work_dir("d-1") / "log"),
        hooks=HookRunner(
            layout, settings.hooks, GroupBackend(grace_seconds=1.0), state_dir, state_dir / "socket"
        ),
        installed=InstalledFiles(layout.database),
        progress=lambda _done, _total: None,
        cancel=Cancel(),
        http=client,
        quarantined={},
        keep=lambda: Keep(frozenset(), frozenset(), frozenset()),
        bundles=Bundles([]),
        report=nothing,
        systemd=None,
        pass_name="validate",
    )


async def test_hook_and_every_endpoint_agree(state_dir: Path, client: HttpClient) -> None:
    ran = state_dir / "ran"
    with status_service() as first, status_service() as second:
        note = await run_step(
            state_dir, client, [first.url, second.url], f'echo "$REVISION_VERSION" > {ran}'
        )
        assert (first.asked, second.asked) == (1, 1)
    assert ran.read_text() == "1.216\n"
    assert "1.216" in note


async def test_a_failing_hook_ends_it_before_any_question(
    state_dir: Path, client: HttpClient
) -> None:
    with status_service() as service:
        with pytest.raises(AgentError) as caught:
            await run_step(state_dir, client, [service.url], "exit 3")
        assert service.asked == 0
    assert caught.value.code is Code.HOOK_FAILED


@pytest.mark.slow
async def test_one_endpoint_of_two_is_not_enough(state_dir: Path, client: HttpClient) -> None:
    old = json_answer({**GOOD, "version": "1.215"})
    with (
        status_service() as first,
        status_service(old) as second,
        pytest.raises(AgentError) as caught,
    ):
        await run_step(state_dir, client, [first.url, second.url], "exit 0")
    assert caught.value.code is Code.VERSION_MISMATCH
    assert caught.value.where == second.url


async def test_a_service_without_a_status_endpoint_is_left_to_its_hooks(
    state_dir: Path, client: HttpClient
) -> None:
    ctx = prepare(state_dir, client, [], "exit 0")
    with (ctx.release.tree / "appspec.yml").open("a") as file:
        file.write("  - unit: go-service.service\n")
    assert (await validate.do(ctx)).note == ""
