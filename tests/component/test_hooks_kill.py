"""Nothing of a hook that failed or took too long goes on; what a good one leaves is named."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from agent.model.errors import Code
from agent.model.settings import Leftover
from agent.system import process
from tests.hook_scene import BACKENDS, DEAF_DAEMONS, START, Scene, is_alive
from tests.waiting import wait_until, wait_until_async

pytestmark = [pytest.mark.parametrize("backend", BACKENDS), pytest.mark.slow]

RACER = f"""#!{sys.executable}
# changes its pid all the time, in a session of its own
import os, signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        time.sleep(0.005)
time.sleep(1000)
"""


async def test_timeout_ends_a_hook_deaf_to_term(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    began = time.monotonic()
    error = await scene.failure(
        "trap '' TERM; echo before; echo $$ > pid; while :; do sleep 1000; done",
        timeout_seconds=0.3,
    )
    assert error.code is Code.HOOK_TIMEOUT
    assert "0.3 s" in error.message
    assert "output: before" in error.details
    assert 0.6 <= time.monotonic() - began < 4
    assert not is_alive(scene.pid("pid"))


async def test_timeout_lets_a_hook_clean_up(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend, grace_seconds=5.0)
    began = time.monotonic()
    error = await scene.failure(
        "trap 'touch cleaned; exit 0' TERM; sleep 1000 & wait", timeout_seconds=0.3
    )
    assert error.code is Code.HOOK_TIMEOUT
    assert (scene.tree / "cleaned").exists()
    assert time.monotonic() - began < 3  # the grace is not waited for in vain


@pytest.mark.parametrize("ending", ["time.sleep(1000)", "raise SystemExit(1)"])
async def test_deaf_daemons_die_with_a_failed_hook(
    state_dir: Path, backend: str, ending: str
) -> None:
    scene = Scene(state_dir, backend)
    began_both = f"""
while not all(os.path.exists(f"{{here}}/{{name}}") for name in ("deaf", "bare")):
    time.sleep(0.01)
{ending}
"""
    error = await scene.failure(DEAF_DAEMONS + began_both, timeout_seconds=1)
    assert error.code in (Code.HOOK_TIMEOUT, Code.HOOK_FAILED)
    assert not is_alive(scene.pid("deaf"))
    assert not is_alive(scene.pid("bare"))


async def test_hook_that_forks_while_it_is_killed(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    await scene.failure(RACER, timeout_seconds=0.5)
    # one look may miss it, as ours may: not all of thirty
    assert not any(_of_deployment(scene.id) for _ in range(30))


async def test_fork_flood_is_ended(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    began = time.monotonic()
    await scene.failure(
        "for i in $(seq 100); do (trap '' TERM; while :; do sleep 0.01; done) & done; wait",
        timeout_seconds=0.5,
    )
    assert time.monotonic() - began < 6
    assert not _of_deployment(scene.id)


async def test_what_a_good_hook_leaves_is_named_and_goes_on(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    began = time.monotonic()
    await scene.run("sleep 1000 & echo $! > pid; exit 0")
    assert time.monotonic() - began < 2
    pid = scene.pid("pid")
    assert f"1 process left over: {pid} sleep 1000" in scene.read_log()
    assert is_alive(pid)
    assert await scene.runner.kill_left_over(scene.id, [START]) == [f"{pid} sleep 1000"]
    assert not is_alive(pid)
    assert await scene.runner.kill_left_over(scene.id, [START]) == []


async def test_left_over_is_killed_if_configured(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend, leftover=Leftover.KILL)
    await scene.run("sleep 1000 & echo $! > pid; exit 0")
    assert "sleep 1000 (killed)" in scene.read_log()
    assert not is_alive(scene.pid("pid"))


async def test_daemon_may_go_on_writing_to_the_hooks_output(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    await scene.run(
        "(i=0; while [ $i -lt 20000 ]; do echo some words from a daemon; i=$((i+1)); done;"
        " echo done > result) & exit 0"
    )
    await wait_until_async(lambda: (scene.tree / "result").exists())


async def test_a_failing_hook_spares_what_an_earlier_one_left(
    state_dir: Path, backend: str
) -> None:
    scene = Scene(state_dir, backend)
    await scene.run("sleep 1000 & echo $! > service")
    await scene.failure("sleep 1000 & echo $! > own; exit 1")
    assert is_alive(scene.pid("service"))
    assert not is_alive(scene.pid("own"))
    await scene.runner.kill_left_over(scene.id, [START])
    assert not is_alive(scene.pid("service"))


async def test_output_of_a_tee_that_ends_last_is_kept(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    error = await scene.failure(
        "#!/bin/bash\nexec > >(tee -a copy) 2>&1\necho why it failed\nexit 1\n"
    )
    assert "output: why it failed" in error.details


async def test_ended_orphans_are_reaped(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    await scene.run("(sleep 0.3 & echo $! > pid) & exit 0")
    wait_until(lambda: not is_alive(scene.pid("pid")))
    await scene.run("true")
    if backend == "group":  # else it is init's
        with pytest.raises(ProcessLookupError):
            os.kill(scene.pid("pid"), 0)
    assert process.children.pids() == frozenset()


def _of_deployment(deployment_id: str) -> list[str]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DEPLOYMENT_ID={deployment_id}".encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:
            continue
    return found
