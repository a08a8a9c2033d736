"""Who is in a unit's control group, in a real one that stands for the unit's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.system import cgroups
from tests.waiting import wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with one below it."""
    own = cgroups.own_folder()
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("needs a writable cgroup2 hierarchy")
    folder = own / f"test-{os.getpid()}.service"
    inner = folder / "worker"
    inner.mkdir(parents=True)
    yield folder
    for each in (inner, folder):
        wait_until(lambda each=each: not cgroups.read_pids(each))
        each.rmdir()


def path_of(folder: Path) -> str:
    """Its path in the hierarchy, as systemd's property ControlGroup has it."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            (folder / "cgroup.procs").write_text(str(process.pid))
            lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        finally:
            process.kill()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def test_processes_of_a_unit_and_of_its_groups_below(group: Path) -> None:
    path = path_of(group)
    with subprocess.Popen(["sleep", "60"]) as first, subprocess.Popen(["sleep", "60"]) as second:
        try:
            (group / "cgroup.procs").write_text(str(first.pid))
            (group / "worker" / "cgroup.procs").write_text(str(second.pid))
            folder = cgroups.unit_folder(path)
            assert folder is not None
            assert sorted(cgroups.read_pids(folder)) == sorted([first.pid, second.pid])
        finally:
            first.kill()
            second.kill()


def test_a_unit_that_does_not_run_has_no_group(group: Path) -> None:
    assert cgroups.unit_folder("") is None
    assert cgroups.unit_folder(f"{path_of(group)}-not-there") is None
    assert cgroups.read_pids(group / "not-there") == []
