"""Targets on other file systems than the release; full, read-only and bind-mounted ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.files import plan, restore
from agent.model.appspec import Permission
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from tests.file_host import File, FileHost, Link
from tests.trees import fingerprint

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
Mount = Callable[..., None]


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts something on a folder, until the test has ended."""
    mounted: list[Path] = []

    def work(folder: Path, *arguments: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *arguments, folder], check=True)
        mounted.append(folder)

    yield work
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)


def test_another_file_system(host: FileHost, mount: Mount) -> None:
    """Files are copied; what is replaced is kept beside, and undone exactly."""
    mount(host.host / "app", "-t", "tmpfs", "tmpfs")
    one = host.release("v1", {"conf/a": "a1", "b": File("b", 0o600), "l": Link("b"), "gone": "g"})
    before = fingerprint(host.host)
    first = host.deployment("d-1", one)
    assert first.summary.bytes == 4
    first.install()
    assert not os.path.samefile(one.tree / "b", host.host / "app/b")
    first.undo()
    assert fingerprint(host.host) == before
    host.deploy("d-2", one)
    before = fingerprint(host.host)
    second = host.deployment(
        "d-3", host.release("v2", {"conf/a": "a2", "b": "b", "l": Link("x"), "n": "n"}), current=one
    )
    second.install()
    [place] = host.host.rglob(".deploy-agent-*")
    assert place.stat().st_mode & 0o777 == 0o700
    second.undo()
    assert fingerprint(host.host) == before
    second.install()
    second.commit()
    assert not list(host.host.rglob(".deploy-agent-*"))


@pytest.mark.slow
def test_killed_at_any_moment_on_another_file_system(state_dir: Path, mount: Mount) -> None:
    mount(state_dir / "host", "-t", "tmpfs", "tmpfs")
    argv = [sys.executable, "-m", "tests.file_kills", str(state_dir), "1", "25"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_mount_within_the_target(host: FileHost, mount: Mount) -> None:
    mount(host.host / "app/data", "-t", "tmpfs", "tmpfs")
    one = host.release("v1", {"a": "1", "data/b": "1", "data/x/c": "1"})
    host.deploy("d-1", one)
    assert os.path.samefile(one.tree / "a", host.host / "app/a")
    before = fingerprint(host.host)
    two = host.release("v2", {"a": "2", "data/b": "2", "data/x/c": "2", "data/y": "2"})
    deployed = host.deployment("d-2", two, current=one)
    assert {each["mount"] for each in plan.plan_report(deployed.path)["space"]} >= {
        str(host.host / "app/data")
    }
    deployed.install()
    assert (host.host / "app/data/x/c").read_text() == "2"
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_bind_mount(host: FileHost, mount: Mount) -> None:
    """The same device, and yet no link or rename crosses it."""
    (host.base / "bound").mkdir()
    mount(host.host / "app", "--bind", host.base / "bound")
    one = host.release("v1", {"a": "1", "b/c": "1"})
    host.deploy("d-1", one)
    before = fingerprint(host.host)
    deployed = host.deployment("d-2", host.release("v2", {"a": "2", "d": "2"}), current=one)
    deployed.install()
    assert (host.base / "bound/a").read_text() == "2"
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_file_system_that_becomes_full(host: FileHost, mount: Mount) -> None:
    """A log, say, fills it between the plan and the install."""
    mount(host.host / "app", "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    one = host.release("v1", {f"d{n}/f": "1" for n in range(10)})
    host.deploy("d-1", one)
    two = host.release("v2", {f"d{n}/f": "2" * 90_000 for n in range(20)})
    refused = host.deployment("d-2", two, current=one, limits=Limits(free_bytes=2**20))
    assert ["bytes are needed" in text for _, _, text in refused.findings("problem")] == [True]
    deployed = host.deployment("d-3", two, current=one)
    plan.refuse(deployed.path)
    (host.host / "app/log").write_bytes(b"x" * 1_200_000)
    before = fingerprint(host.host)
    with pytest.raises(AgentError) as caught:
        deployed.install()
    assert caught.value.code is Code.DISK_FULL
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_full_disk_that_holds_the_agents_state_too(state_dir: Path, mount: Mount) -> None:
    """Then not even a note of the undo can be saved."""
    mount(state_dir / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs")
    host = FileHost(state_dir / "small")
    one = host.release("v1", {f"d{n}/f": File("1" * 1000, 0o600) for n in range(10)})
    host.deploy("d-1", one)
    rule = Permission(object=str(host.host), types=("file",), mode=0o664)  # copies all
    two = host.release("v2", {f"{k}{n}/f": "2" * 50_000 for k in "de" for n in range(10)})
    deployed = host.deployment("d-2", two, current=one, permissions=(rule,))
    before = fingerprint(host.host)
    filler = host.base / "filler"
    room = os.statvfs(host.base).f_bavail * 4096
    filler.write_bytes(b"x" * (room - 500_000))
    with pytest.raises(AgentError) as caught:
        deployed.install()
    assert caught.value.code is Code.DISK_FULL
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_file_system_without_inodes(host: FileHost, mount: Mount) -> None:
    mount(host.host / "app", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs")
    release = host.release("v1", {f"{n}": "1" for n in range(30)})
    refused = host.deployment("d-1", release, limits=Limits(free_bytes=0, free_inodes=20))
    assert ["inodes are needed" in text for _, _, text in refused.findings("problem")] == [True]
    deployed = host.deployment("d-2", release)
    plan.refuse(deployed.path)
    for number in range(20):
        (host.host / f"app/log{number}").touch()
    before = fingerprint(host.host)
    with pytest.raises(AgentError) as caught:
        deployed.install()
    assert caught.value.code is Code.DISK_FULL
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_place_that_another_user_made_is_not_used(host: FileHost, mount: Mount) -> None:
    mount(host.host / "app", "-t", "tmpfs", "tmpfs")
    one = host.release("v1", {"a": "1"})
    host.deploy("d-1", one)
    (host.host / "app/.deploy-agent-d-2").mkdir()
    os.chown(host.host / "app/.deploy-agent-d-2", 65534, 65534)
    before = fingerprint(host.host)
    deployed = host.deployment("d-2", host.release("v2", {"a": "2"}), current=one)
    with pytest.raises(AgentError):
        deployed.install()
    assert (host.host / "app/a").read_text() == "1"
    assert fingerprint(host.host) == before


def test_a_read_only_file_system(host: FileHost, mount: Mount) -> None:
    mount(host.host / "app", "-t", "tmpfs", "-o", "ro", "tmpfs")
    deployed = host.deployment("d-1", host.release("v1", {"a": "a"}))
    [(path, _, text)] = deployed.findings("problem")
    assert path == str(host.host / "app")
    assert "read-only" in text


@pytest.mark.slow
def test_a_plan_for_a_full_state_folder(host: FileHost, mount: Mount) -> None:
    work_dir = host.layout.work_dir("d-1")
    mount(work_dir, "-t", "tmpfs", "-o", "size=40k", "tmpfs")
    release = host.release("v1", {f"a{n:04}": "a" for n in range(2000)})
    deployed = host.deployment("d-2", release)
    deployed.work_dir = work_dir
    before = fingerprint(host.host)
    with pytest.raises(AgentError) as caught:
        deployed.plan(release)
    assert caught.value.code is Code.DISK_FULL
    restore.undo(work_dir, capture=lambda _: None, cancel=None)  # type: ignore[arg-type, return-value]
    assert fingerprint(host.host) == before


def test_as_a_plain_user(host: FileHost) -> None:
    """What only root may do is found by the plan."""
    os.chmod(host.base, 0o755)
    release = host.release("v1", {"a": "a"})
    for path in (host.base, *host.base.rglob("*")):
        os.chown(path, 65534, 65534)
    (host.host / "theirs").mkdir()
    argv = [sys.executable, "-m", "tests.file_plain_user", str(host.base)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout.split("\n")[:-1] == ["2", "1", "0", "a 2", "False"], ended.stderr
    assert release.tree.exists()
