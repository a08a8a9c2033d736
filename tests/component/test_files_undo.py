"""Undo puts back exactly what was there: whole-tree fingerprints before and after."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.files import planfile, restore
from agent.model.appspec import FileExistsBehavior, Permission
from agent.model.errors import AgentError, Code
from agent.model.release import Release
from agent.system.cancel import Cancel
from tests.file_host import Deployed, File, FileHost, Link
from tests.trees import fingerprint

ROOT = Path(__file__).resolve().parents[2]
V1 = {"bin/run": File("one", 0o755), "conf/a": "a1", "gone/x": "x", "same": "s", "l": Link("same")}
V2 = {"bin/run": File("two", 0o755), "conf/a": "a2", "new/y": "y", "same": "s", "l": Link("conf")}


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


def second(host: FileHost) -> tuple[Release, Deployed]:
    """Version 1 committed, and the plan of version 2."""
    one = host.release("v1", V1)
    host.deploy("d-1", one)
    return one, host.deployment("d-2", host.release("v2", V2), current=one)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(state_dir: Path, seed: int) -> None:
    program = [sys.executable, "-m", "tests.file_kills", state_dir, str(seed), "25"]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_first_deployment(host: FileHost) -> None:
    before = fingerprint(host.host)
    deployed = host.deployment("d-1", host.release("v1", V1))
    deployed.install()
    deployed.undo()
    assert fingerprint(host.host) == before
    restore.forget(deployed.work_dir)
    assert not list(deployed.work_dir.iterdir())


def test_a_second_deployment_with_the_very_same_files(host: FileHost) -> None:
    _, deployed = second(host)
    app = host.host / "app"
    before, file = fingerprint(host.host), (app / "conf/a").stat().st_ino
    deployed.install()
    assert fingerprint(host.host) != before
    deployed.undo()
    assert fingerprint(host.host) == before
    assert (app / "conf/a").stat().st_ino == file


def test_without_the_release(host: FileHost) -> None:
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    shutil.rmtree(host.layout.releases)
    deployed.undo()
    assert fingerprint(host.host) == before


def test_with_a_state_folder_behind_a_symlink(host: FileHost) -> None:
    _, deployed = second(host)
    (host.base / "by another name").symlink_to(host.layout.state_dir)
    deployed.work_dir = host.base / "by another name/deployments/d-2"
    before = fingerprint(host.host)
    deployed.install()
    assert not list(host.host.rglob(".deploy-agent*"))
    deployed.undo()
    assert fingerprint(host.host) == before


def test_twice_and_without_a_plan(host: FileHost) -> None:
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    deployed.undo()
    deployed.undo()
    assert fingerprint(host.host) == before
    deployed.path.unlink()
    deployed.undo()
    assert fingerprint(host.host) == before


def test_install_again_after_an_undo(host: FileHost) -> None:
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    deployed.undo()
    deployed.install()
    assert (host.host / "app/new/y").exists()
    deployed.undo()
    assert fingerprint(host.host) == before


def test_what_was_overwritten(host: FileHost) -> None:
    app = host.host / "app"
    (app / "conf").mkdir(parents=True)
    (app / "conf/a").write_text("theirs")
    (app / "conf/a").chmod(0o640)
    os.link(app / "conf/a", app / "hard link of it")
    (app / "same").symlink_to("conf/a")
    before = fingerprint(host.host)
    deployed = host.deployment(
        "d-1", host.release("v1", V1), file_exists_behavior=FileExistsBehavior.OVERWRITE
    )
    deployed.install()
    assert (app / "same").read_text() == "s"
    deployed.undo()
    assert fingerprint(host.host) == before


def test_permissions_of_folders(host: FileHost) -> None:
    one = host.release("v1", {"d/a": "a"})
    host.deploy("d-1", one)
    before = fingerprint(host.host)
    rule = Permission(object=str(host.host), types=("directory",), mode=0o2750)
    deployed = host.deployment("d-2", one, current=one, permissions=(rule,))
    deployed.install()
    assert (host.host / "app/d").stat().st_mode & 0o7777 == 0o2750
    deployed.undo()
    assert fingerprint(host.host) == before


def test_what_others_put_into_a_new_folder_stays(host: FileHost) -> None:
    deployed = host.deployment("d-1", host.release("v1", {"log/.keep": "", "run/a": "a"}))
    deployed.install()
    (host.host / "app/log/today").write_text("logged")
    deployed.undo()
    left = [str(p.relative_to(host.host)) for p in sorted(host.host.rglob("*"))]
    assert left == ["app", "app/log", "app/log/today"]


def test_what_a_service_replaced_goes_all_the_same(host: FileHost) -> None:
    """A path that did not exist before the install does not exist after its undo."""
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    (host.host / "app/new/y").unlink()
    (host.host / "app/new/y").write_text("written anew")
    (host.host / "app/conf/a").unlink()
    deployed.undo()
    assert fingerprint(host.host) == before


@pytest.mark.parametrize("where", ["before the install", "after it"])
def test_what_a_hook_removed_is_back(host: FileHost, where: str) -> None:
    one = host.release("v1", {**V1, "secret": File("s", 0o600)})
    host.deploy("d-1", one)
    deployed = host.deployment("d-2", host.release("v2", V2), current=one)
    before = fingerprint(host.host)
    if where == "after it":
        deployed.install()
    shutil.rmtree(host.host / "app")
    if where == "before the install":
        deployed.install()
    deployed.undo()
    after = fingerprint(host.host)
    assert after.keys() == before.keys()
    for path in ("app/bin/run", "app/conf/a", "app/gone/x", "app/same", "app/secret"):
        assert after[path] == before[path]
    assert (host.host / "app/l").readlink() == Path("same")


def test_what_a_hook_removed_is_back_though_nothing_was_installed(host: FileHost) -> None:
    """BeforeInstall removed the old revision and then failed."""
    one, deployed = second(host)
    shutil.rmtree(one.tree / "same", ignore_errors=True)
    shutil.rmtree(host.host / "app")
    deployed.undo()
    app = host.host / "app"
    assert (app / "conf/a").read_text() == "a1"
    assert (app / "l").readlink() == Path("same")
    assert (app / "gone/x").stat().st_mtime_ns == (one.tree / "gone/x").stat().st_mtime_ns


@pytest.mark.root
def test_what_a_hook_gave_away_is_taken_back(host: FileHost) -> None:
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    subprocess.run(["chown", "-R", "nobody", host.host / "app"], check=True)
    subprocess.run(["chmod", "-R", "go+w", host.host / "app"], check=True)
    deployed.undo()
    assert fingerprint(host.host) == before


def test_what_cannot_be_restored_is_told_and_the_rest_is_restored(host: FileHost) -> None:
    one, deployed = second(host)
    deployed.install()
    shutil.rmtree(one.tree)
    shutil.rmtree(host.layout.releases / "v2")
    (host.host / "app/same").write_text("a hook wrote here")
    with pytest.raises(AgentError) as caught:
        deployed.undo()
    assert caught.value.code is Code.INSTALL_FAILED
    assert [line.split(":")[0] for line in caught.value.details] == [str(host.host / "app/same")]
    assert (host.host / "app/conf/a").read_text() == "a1"
    assert not (host.host / "app/new").exists()
    restore.forget(deployed.work_dir)  # keeps what an undo still needs
    with planfile.opened(deployed.path) as plan:
        assert planfile.load_words(plan)["undoing"]


def test_nothing_is_left_after_the_commit(host: FileHost) -> None:
    _, deployed = second(host)
    deployed.install()
    assert (deployed.work_dir / "kept").exists()
    deployed.commit()
    assert not (deployed.work_dir / "kept").exists()
    assert not list(host.host.rglob(".deploy-agent*"))


def test_a_stopped_install_is_undone(host: FileHost) -> None:
    _, deployed = second(host)
    before = fingerprint(host.host)
    deployed.install()
    cancel = Cancel()
    cancel.set("asked to")
    with pytest.raises(AgentError) as caught:
        restore.undo(deployed.work_dir, capture=lambda _: None, cancel=cancel)  # type: ignore[arg-type, return-value]
    assert caught.value.code is Code.ABORTED
    deployed.undo()
    assert fingerprint(host.host) == before
