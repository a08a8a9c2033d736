"""P12: a hundred deployments on a small disk never fail for space."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_host import AgentHost
from tests.bundles import make_bundle


@pytest.fixture
def host(state_dir: Path) -> Iterator[AgentHost]:
    disk = state_dir / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200M", "tmpfs", str(disk)], check=True)
    host = AgentHost(state_dir, "limits: {free: 1M}\n", state_dir=disk / "state")
    yield host
    host.clear()
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_deployments_on_a_small_disk(host: AgentHost) -> None:
    host.start()
    noise = random.Random(5)
    for number in range(100):
        bundle = make_bundle(
            host.base, str(number), files={"app/big": noise.randbytes(8 * 2**20).hex()}
        )
        view = host.deploy(bundle)
        assert view["outcome"] == "succeeded", (number, view["failure"])
        bundle.unlink()
    assert host.serving() == "99"
