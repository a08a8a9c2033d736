"""The agent is killed inside a hook: the next one ends that hook, and spares the services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hook_scene import BACKENDS, DEAF_DAEMONS, START, Scene, is_alive
from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def killed(state_dir: Path, backend: str) -> Iterator[Scene]:
    """A scene whose agent was killed while its second hook ran."""
    scene = Scene(state_dir, backend)
    scene.script("sleep 1000 & echo $! > service; exit 0", "first.sh")
    scene.script(
        f"sleep 1000 & {sys.executable} daemons.py $RELEASE_DIR\necho $$ > main; sleep 1000; true",
        "second.sh",
    )
    scene.script(DEAF_DAEMONS, "daemons.py")
    agent = subprocess.Popen(
        [sys.executable, "-m", "tests.hook_scene", backend, state_dir, "first.sh", "second.sh"],
        cwd=REPOSITORY,
    )
    wait_until(lambda: all(map(scene.pid, ("service", "main", "deaf", "bare"))), 8)
    agent.kill()
    assert agent.wait() == -signal.SIGKILL
    yield scene
    for name in ("bare", "service"):
        if is_alive(scene.pid(name)):
            os.kill(scene.pid(name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
async def test_clear_ends_the_interrupted_hook_only(killed: Scene, backend: str) -> None:
    assert is_alive(killed.pid("main"))
    ended = await killed.runner.clear(killed.id)
    assert any(line.startswith(f"{killed.pid('main')} ") for line in ended)
    assert not is_alive(killed.pid("main"))
    assert not is_alive(killed.pid("deaf"))
    if backend == "cgroup":
        assert not is_alive(killed.pid("bare"))  # the group backend knows it no more: docs/hooks.md
    assert is_alive(killed.pid("service"))
    assert await killed.runner.clear(killed.id) == []
    assert await killed.runner.kill_left_over(killed.id, [START]) == [
        f"{killed.pid('service')} sleep 1000"
    ]
    assert not is_alive(killed.pid("service"))


@pytest.mark.parametrize("backend", BACKENDS)
async def test_nothing_to_clear(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    assert await scene.runner.clear(scene.id) == []
    await scene.run("true")
    assert await scene.runner.clear(scene.id) == []
    assert await scene.runner.clear("d-NEVER") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', "\0" * 100])
async def test_damaged_record_ends_nothing(state_dir: Path, text: str) -> None:
    scene = Scene(state_dir, "group")
    (scene.work_dir / "hooks.json").write_text(text)
    assert await scene.runner.clear(scene.id) == []
    await scene.run("true")


async def test_record_of_another_boot_ends_nothing(state_dir: Path) -> None:
    scene = Scene(state_dir, "group")
    await scene.run("sleep 1000 & echo $! > pid")
    path = scene.work_dir / "hooks.json"
    text = path.read_text()
    path.write_text(text.replace(text.split('"')[3], "another-boot"))
    assert await scene.runner.kill_left_over(scene.id, [START]) == []
    assert is_alive(scene.pid("pid"))
    path.write_text(text)
    assert await scene.runner.kill_left_over(scene.id, [START])
    assert not is_alive(scene.pid("pid"))
