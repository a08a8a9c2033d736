"""Hooks as the lifecycle runs them: what counts as success, what is said of a failure."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Code, Interrupted
from tests.hook_scene import COMMANDS, DEFAULT_BACKEND, STDOUT, Scene, is_alive
from tests.waiting import wait_until_async


@pytest.fixture
def scene(state_dir: Path) -> Iterator[Scene]:
    return Scene(state_dir, DEFAULT_BACKEND)


async def test_success_and_failure_by_exit_code(scene: Scene) -> None:
    await scene.run("#!/bin/sh\nexit 0\n")
    error = await scene.failure("#!/bin/sh\necho one\necho two >&2\nexit 3\n")
    assert error.code is Code.HOOK_FAILED
    assert error.where == "ApplicationStart run.sh"
    assert "exit code 3" in error.message
    assert "output: one" in error.details
    assert "output: two" in error.details
    assert str(scene.log.path) in error.remedy


async def test_first_failure_ends_the_event(scene: Scene) -> None:
    scene.script("touch $RELEASE_DIR/first", "a.sh")
    scene.script("exit 1", "b.sh")
    scene.script("touch $RELEASE_DIR/third", "c.sh")
    with pytest.raises(AgentError) as caught:
        await scene.run_all(["a.sh", "b.sh", "c.sh"])
    assert caught.value.where == "ApplicationStart b.sh"
    assert (scene.tree / "first").exists()
    assert not (scene.tree / "third").exists()


async def test_signal_is_named(scene: Scene) -> None:
    error = await scene.failure("kill -SEGV $$")
    assert "SIGSEGV" in error.message


async def test_environment_is_exactly_the_documented_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    await scene.run(
        f"#!{sys.executable}\nimport json, os\n"
        "json.dump(dict(os.environ), open(os.environ['RELEASE_DIR'] + '/env', 'w'))\n"
    )
    account = pwd.getpwuid(os.geteuid())
    assert json.loads((scene.tree / "env").read_text()) == {
        "PATH": f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{COMMANDS}",
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell,
        "LANG": "C.UTF-8",
        "LIFECYCLE_EVENT": "ApplicationStart",
        "HOOK_TIMEOUT": "3600",
        "DEPLOYMENT_ID": scene.id,
        "APPLICATION_NAME": "shop",
        "DEPLOYMENT_GROUP_NAME": "web",
        "DEPLOYMENT_GROUP_ID": "g-1",
        "BUNDLE_BUCKET": "bundles",
        "BUNDLE_KEY": "shop-1.2.zip",
        "REVISION_VERSION": "1.2",
        "PREVIOUS_VERSION": "1.1",
        "RELEASE_DIR": str(scene.tree),
        "DEPLOY_AGENT_SOCKET": str(scene.tree.parent / "agent.sock"),
    }


async def test_starts_in_the_release_without_input_or_other_descriptors(scene: Scene) -> None:
    scene_fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(scene_fd, True)
    try:
        await scene.run(
            "pwd > where; umask > mask\n"
            "readlink /proc/$$/fd/0 > input; ls /proc/$$/fd > descriptors"
        )
    finally:
        os.close(scene_fd)
    assert (scene.tree / "where").read_text().strip() == str(scene.tree)
    assert (scene.tree / "input").read_text() == "/dev/null\n"
    assert (scene.tree / "mask").read_text() == "0022\n"
    # 255 is bash's own, for the script
    assert {0, 1, 2, 255} >= set(map(int, (scene.tree / "descriptors").read_text().split())) - {3}


async def test_scripts_run_without_shebang_or_executable_bit(scene: Scene) -> None:
    await scene.run("[[ $LIFECYCLE_EVENT == Application* ]] || exit 9")
    await scene.run("")
    await scene.run(f"#!{sys.executable} -S\nimport sys; assert 'site' not in sys.modules\n")
    assert scene.tree.joinpath("run.sh").stat().st_mode & 0o777 == 0o644


async def test_windows_line_ends_are_explained(scene: Scene) -> None:
    error = await scene.failure("#!/bin/bash\r\necho hello\r\n")
    assert error.code is Code.HOOK_NOT_RUNNABLE
    assert "CRLF" in error.message
    assert "dos2unix" in error.remedy
    error = await scene.failure("true\r\nexit 3\r\n")
    assert error.code is Code.HOOK_FAILED
    assert any("CRLF" in line for line in error.details)


async def test_command_not_found_and_not_executable_are_explained(scene: Scene) -> None:
    error = await scene.failure("no-such-command-here")
    assert any("127: a command was not found on the PATH" in line for line in error.details)
    error = await scene.failure("#!/usr/bin/env no-such-python\n")
    assert any("wants no-such-python" in line for line in error.details)
    error = await scene.failure("/etc/passwd")
    assert any("126" in line and "noexec" in line for line in error.details)


@pytest.mark.slow
async def test_exit_75_is_tried_again_within_the_timeout(scene: Scene) -> None:
    await scene.run('echo x >> tries; [ "$(wc -l < tries)" -ge 3 ] || exit 75')
    assert (scene.tree / "tries").read_text() == "x\n" * 3
    began = time.monotonic()
    error = await scene.failure("exit 75", timeout_seconds=0.4)
    assert error.code is Code.HOOK_TIMEOUT
    assert "tried again" in error.message
    assert time.monotonic() - began < 2


async def test_abort_ends_the_running_hook(scene: Scene) -> None:
    scene.script("trap 'echo last words; exit' TERM; echo $$ > pid; sleep 1000 & wait")
    running = asyncio.create_task(scene.run_all(["run.sh"]))
    await wait_until_async(lambda: scene.pid("pid"))
    assert scene.runner.stop_running("asked for by anna")
    with pytest.raises(AgentError, match="asked for by anna") as caught:
        await running
    assert caught.value.code is Code.ABORTED
    assert not is_alive(scene.pid("pid"))
    assert f"[{STDOUT}] last words" in scene.read_log()
    assert not scene.runner.stop_running("again")


async def test_cancelled_caller_ends_the_running_hook(scene: Scene) -> None:
    scene.script("trap '' TERM; echo $$ > pid; while :; do sleep 1000; done")
    running = asyncio.create_task(scene.run_all(["run.sh"]))
    await wait_until_async(lambda: scene.pid("pid"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(scene.pid("pid"))


async def test_second_cancel_cuts_the_grace_short(state_dir: Path) -> None:
    scene = Scene(state_dir, DEFAULT_BACKEND, grace_seconds=60.0)
    scene.script("trap 'echo 1 > told' TERM; echo $$ > pid; while :; do sleep 0.05; done")
    running = asyncio.create_task(scene.run_all(["run.sh"]))
    await wait_until_async(lambda: scene.pid("pid"))
    began = time.monotonic()
    running.cancel()
    await wait_until_async(lambda: scene.pid("told"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - began < 5


async def test_cancel_flag_stops_between_two_hooks(scene: Scene) -> None:
    scene.script("touch $RELEASE_DIR/ran", "a.sh")
    scene.cancel.set("aborted by anna")
    with pytest.raises(Interrupted, match="anna"):
        await scene.run_all(["a.sh"])
    assert not (scene.tree / "ran").exists()


async def test_full_state_disk_does_not_keep_a_hook_from_running(scene: Scene) -> None:
    (scene.work_dir / "hooks.json.partial").mkdir()  # no file can be written there
    await scene.run("touch ran")
    assert (scene.tree / "ran").exists()


@pytest.mark.root
async def test_sudo_is_nothing_for_root(scene: Scene) -> None:
    await scene.run("id -u > uid", sudo=True)
    assert (scene.tree / "uid").read_text() == "0\n"
