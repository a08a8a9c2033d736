"""The agent is killed at random moments, again and again: each time the old or the new serves."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.trees import without_folder_times

SEEDS = (1, 2, 3, 4)
ROUNDS = 25  # of each seed: 100 in all


@pytest.fixture
def host(state_dir: Path) -> Iterator[AgentHost]:
    host = AgentHost(state_dir, "starts: 100\n")
    try:
        yield host
    finally:
        host.clear()


def many_files(version: str) -> dict[str, str]:
    """200 files: some the same in every version, some other, some only here."""
    files = {f"app/d{n % 10}/same{n}": f"{n}\n" for n in range(100)}
    files |= {f"app/d{n % 10}/other{n}": f"{version} {n}\n" for n in range(50)}
    files |= {f"app/e{version}/own{n}": f"{n}\n" for n in range(50)}
    return files


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills_leave_old_or_new(host: AgentHost, seed: int) -> None:
    chance = random.Random(seed)
    bundles = {v: make_bundle(host.base, v, files=many_files(v)) for v in ("1", "2")}
    wanted = {}
    host.start()
    for version in ("2", "1"):
        assert host.deploy(bundles[version])["outcome"] == "succeeded"
        wanted[version] = without_folder_times(host.files())
    serving = "1"
    pause = threading.Event()
    for number in range(ROUNDS):
        other = "2" if serving == "1" else "1"
        before = host.files()
        deployment_id = host.request(bundles[other], force=True)
        pause.wait(chance.uniform(0.0, 0.5))  # the moment of the kill is what is tried here
        host.kill()
        host.start()
        if chance.random() < 0.3:
            pause.wait(chance.uniform(0.0, 0.3))
            host.kill()
            host.start()
        view = host.wait_for_outcome(deployment_id)
        assert view["outcome"] in ("succeeded", "rolled_back"), (number, view["failure"])
        if view["outcome"] == "succeeded":
            serving = other
        assert host.serving() == serving, (number, view["failure"])
        if view["outcome"] == "rolled_back":
            assert host.files() == before, (seed, number)
        assert without_folder_times(host.files()) == wanted[serving], (seed, number)
