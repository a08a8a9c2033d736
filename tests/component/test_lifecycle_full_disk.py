"""A full disk in fetch, unpack and install ends with the old revision serving."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent_host import AgentHost
from tests.bundles import make_bundle

pytestmark = [pytest.mark.root, pytest.mark.timeout(60), pytest.mark.slow]

MIB = 2**20
# no reserve: the disk is to become really full, not to be refused beforehand
NO_RESERVE = "limits: {free: 0, free_inodes: 0}\n"


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[None]:
    at.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(at)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def noise(size: int) -> str:
    """Text that does not compress below half."""
    return random.Random(7).randbytes(size // 2).hex()


def test_fetch_with_too_little_space(state_dir: Path) -> None:
    with small_disk(state_dir / "disk", 6 * MIB):
        host = AgentHost(state_dir, NO_RESERVE, state_dir=state_dir / "disk" / "state")
        try:
            check(host, noise(14 * MIB), steps={"fetch"})
        finally:
            host.clear()


def test_unpack_with_too_little_space(state_dir: Path) -> None:
    with small_disk(state_dir / "disk", 14 * MIB):
        host = AgentHost(state_dir, NO_RESERVE, state_dir=state_dir / "disk" / "state")
        try:
            check(host, noise(10 * MIB), steps={"unpack"})
        finally:
            host.clear()


def test_install_with_too_little_space(state_dir: Path) -> None:
    """The target is a small disk of its own, that something else fills after the plan."""
    with small_disk(state_dir / "app", 4 * MIB):
        host = AgentHost(state_dir, NO_RESERVE)
        try:
            fill = f"#!/bin/sh\nhead -c 3000000 /dev/zero > {state_dir}/app/filler\n"
            check(host, noise(2 * MIB), steps={"install"}, hooks={"BeforeInstall": fill})
        finally:
            host.clear()


def check(
    host: AgentHost, big: str, *, steps: set[str], hooks: dict[str, str] | None = None
) -> None:
    host.start()
    assert host.deploy(make_bundle(host.base, "1"))["outcome"] == "succeeded"
    before = host.files()
    bundle = make_bundle(host.base, "2", files={"app/big": big}, hooks=hooks)
    view = host.deploy(bundle)
    assert view["failure"]["code"] == "disk-full", view
    assert {s["name"] for s in view["steps"] if s["failure"]} == steps
    (host.base / "app" / "filler").unlink(missing_ok=True)
    if "install" in steps:
        assert view["outcome"] == "rolled_back"
        assert {k: v for k, v in host.files().items() if k != "."} == {
            k: v for k, v in before.items() if k != "."
        }
    else:
        assert view["outcome"] == "failed"
        assert host.files() == before
    assert host.serving() == "1"
    # and there is room again for the next one
    small = make_bundle(host.base, "3")
    assert host.deploy(small)["outcome"] == "succeeded"
    assert host.serving() == "3"


def test_state_that_cannot_be_written_is_waited_for(state_dir: Path) -> None:
    """The agent goes on answering, and what was asked for is deployed once there is space."""
    with small_disk(state_dir / "disk", 8 * MIB):
        host = AgentHost(state_dir, NO_RESERVE, state_dir=state_dir / "disk" / "state")
        try:
            host.start()
            host.deploy_good(make_bundle(host.base, "1"))
            filler = state_dir / "disk" / "filler"
            subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True)
            bundle = make_bundle(host.base, "2")
            body = {"bundle": str(bundle), "application": "service"}
            status, answer = host.client.request("POST", "/v1/deployments", body)
            assert (status, answer["error"]["code"]) == (500, "disk-full")
            assert "Free space" in answer["error"]["remedy"]
            assert host.serving() == "1"
            assert host.ask("GET", "/v1/status")["applications"][0]["current"]["version"] == "1"
            filler.unlink()
            host.deploy_good(make_bundle(host.base, "3"))
            assert host.serving() == "3"
        finally:
            host.clear()
