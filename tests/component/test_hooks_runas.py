"""Hooks of another user: as root by a switch of all ids, and refused to anyone else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.hooks import runas
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError, Code
from tests.hook_scene import BACKENDS, START, Scene

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.mark.root
@pytest.mark.parametrize("backend", BACKENDS)
async def test_runas_switches_user_groups_and_home(state_dir: Path, backend: str) -> None:
    scene = Scene(state_dir, backend)
    os.chmod(state_dir, 0o755)
    os.chmod(scene.tree, 0o777)
    await scene.run(
        "id -u > ids; id -G >> ids; echo $HOME $USER $LOGNAME $SHELL >> ids\n"
        "echo seen > /dev/stderr",
        runas="nobody",
    )
    groups = " ".join(map(str, os.getgrouplist("nobody", NOBODY)))
    assert (scene.tree / "ids").read_text().splitlines() == [
        str(NOBODY),
        groups,
        "/nonexistent nobody nobody /usr/sbin/nologin",
    ]
    stream = "output" if backend == "transient" else "stderr"
    assert f"[{stream}] seen" in scene.read_log()


@pytest.mark.root
async def test_release_that_the_user_cannot_reach_is_explained(state_dir: Path) -> None:
    scene = Scene(state_dir, "group")
    os.chmod(state_dir, 0o700)
    error = await scene.failure("true", runas="nobody")
    assert any(f"nobody may not enter {state_dir}" in line for line in error.details)


async def test_unknown_user_is_found_by_plan_and_by_the_hook(state_dir: Path) -> None:
    scene = Scene(state_dir, "group")
    hooks = [Hook(START, "run.sh", runas="no-such-user")] * 2
    problems, warnings = runas.check_runas(hooks)
    assert len(problems) == 1
    assert "no-such-user" in problems[0]
    assert warnings == []
    error = await scene.failure("true", runas="no-such-user")
    assert error.where == "ApplicationStart run.sh"


def test_user_may_be_created_by_before_install_for_hooks_after_it() -> None:
    creates = Hook(LifecycleEvent.BEFORE_INSTALL, "create-user")
    after = Hook(LifecycleEvent.AFTER_INSTALL, "migrate", runas="no-such-user")
    before = Hook(LifecycleEvent.APPLICATION_STOP, "stop", runas="no-such-user")
    problems, warnings = runas.check_runas([creates, after, before])
    assert [text.split(":")[0] for text in problems] == ["ApplicationStop stop"]
    assert [text.split(":")[0] for text in warnings] == ["AfterInstall migrate"]
    problems, warnings = runas.check_runas([after])
    assert len(problems) == 1
    assert warnings == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "code"), [("root", "not-permitted"), ("nobody", ""), ("", ""), ("x", "not-found")]
)
def test_plain_user_runs_hooks_as_itself_only(state_dir: Path, user: str, code: str) -> None:
    scene = Scene(state_dir, "group")
    scene.script("id -u > uid")
    for folder, _, files in os.walk(state_dir):
        for path in [folder, *(os.path.join(folder, each) for each in files)]:
            os.chown(path, NOBODY, NOBODY)
    if not _can_nobody_run_this():
        pytest.skip("nobody may not read this checkout: not shown is what a plain user may do")
    done = subprocess.run(
        [sys.executable, "-m", "tests.hook_scene", "group", state_dir, f"--runas={user}", "run.sh"],
        cwd=REPOSITORY,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split(" ")[0].strip() == code
    if not code:
        assert (scene.tree / "uid").read_text() == f"{NOBODY}\n"


def test_sudo_is_left_to_sudo_where_the_agent_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Hook(START, "run.sh", sudo=True)
    argv = ("/bin/sh", "run.sh")
    expected = argv if os.geteuid() == 0 else ("sudo", "-n", *argv)
    assert runas.with_sudo(hook, argv) == expected


@pytest.mark.root
def test_root_may_be_anyone() -> None:
    account, must_switch = runas.find_runas(Hook(START, "run.sh", runas="nobody"))
    assert (account.uid, must_switch) == (NOBODY, True)
    account, must_switch = runas.find_runas(Hook(START, "run.sh", runas="root"))
    assert (account.uid, must_switch) == (0, False)
    with pytest.raises(AgentError) as caught:
        runas.find_runas(Hook(START, "run.sh", runas="no-such-user"))
    assert caught.value.code is Code.NOT_FOUND


def _can_nobody_run_this() -> bool:
    probe = [sys.executable, "-c", "import tests.hook_scene"]
    try:
        done = subprocess.run(probe, cwd=REPOSITORY, user=NOBODY, capture_output=True, check=False)
    except PermissionError:
        return False
    return done.returncode == 0
