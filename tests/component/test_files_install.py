"""Installing a plan: what is on the host afterwards, and how it got there."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest

from agent.files import plan
from agent.model.appspec import FileExistsBehavior, Hook, LifecycleEvent, Permission
from agent.model.errors import AgentError, Code
from tests.file_host import MTIME_NS, File, FileHost, Link

V1 = {"bin/run": File("one", 0o755), "conf/a": "a1", "conf/b": "b", "gone/x": "x", "same": "s"}
V2 = {"bin/run": File("two", 0o755), "conf/a": "a2", "conf/b": "b", "new/y": "y", "same": "s"}


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


def test_a_new_tree(host: FileHost) -> None:
    deployed = host.deploy("d-1", host.release("v1", {**V1, "link": Link("conf/a")}))
    app = host.host / "app"
    assert (app / "conf/a").read_text() == "a1"
    assert (app / "link").readlink() == Path("conf/a")
    assert stat.S_IMODE((app / "bin/run").stat().st_mode) == 0o755
    assert (app / "conf/a").stat().st_mtime_ns == MTIME_NS
    assert stat.S_IMODE(app.stat().st_mode) == 0o755
    assert set(deployed.actions().values()) == {"add", "mkdir"}


def test_a_second_revision_touches_only_what_differs(host: FileHost) -> None:
    one = host.release("v1", V1)
    host.deploy("d-1", one)
    app = host.host / "app"
    kept = (app / "same").stat()
    deployed = host.deploy("d-2", host.release("v2", V2), current=one)
    assert deployed.actions() == {
        "app": "keep",
        "app/bin": "keep",
        "app/bin/run": "replace",
        "app/conf": "keep",
        "app/conf/a": "replace",
        "app/conf/b": "keep",
        "app/gone": "rmdir",
        "app/gone/x": "remove",
        "app/new": "mkdir",
        "app/new/y": "add",
        "app/same": "keep",
    }
    assert (app / "same").stat().st_ino == kept.st_ino
    assert (app / "bin/run").read_text() == "two"
    assert not (app / "gone").exists()
    assert sorted(p.name for p in app.iterdir()) == ["bin", "conf", "new", "same"]


def test_a_revision_with_new_times_only_changes_nothing(host: FileHost) -> None:
    one = host.release("v1", {"a": File("a", mtime_ns=10**18), "b": File("b", mtime_ns=10**18)})
    host.deploy("d-1", one)
    two = host.release("v2", {"a": File("a", mtime_ns=2 * 10**18), "b": "b"})
    assert set(host.deploy("d-2", two, current=one).actions().values()) == {"keep"}
    three = host.release("v3", {"a": "a", "b": "b"})  # what was kept is still known as it is
    assert set(host.deploy("d-3", three, current=two).actions().values()) == {"keep"}


def test_files_of_root_are_linked_and_not_copied(host: FileHost) -> None:
    release = host.release("v1", {"a": "a"})
    assert host.deploy("d-1", release).summary.bytes == 0
    assert os.path.samefile(release.tree / "a", host.host / "app" / "a")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o4755])
def test_what_others_can_write_is_never_linked(host: FileHost, mode: int) -> None:
    release = host.release("v1", {"a": "a"})
    rule = Permission(object=str(host.host), mode=mode)
    host.deploy("d-1", release, permissions=(rule,))
    assert not os.path.samefile(release.tree / "a", host.host / "app" / "a")
    assert stat.S_IMODE((host.host / "app" / "a").stat().st_mode) == mode
    assert stat.S_IMODE((release.tree / "a").stat().st_mode) == 0o644


@pytest.mark.root
def test_what_another_user_owns_is_never_linked(host: FileHost) -> None:
    release = host.release("v1", {"a": "a"})
    rule = Permission(object=str(host.host), owner="nobody")
    host.deploy("d-1", release, permissions=(rule,))
    assert (host.host / "app" / "a").owner() == "nobody"
    assert (release.tree / "a").owner() == "root"


def test_hook_scripts_are_never_linked(host: FileHost) -> None:
    release = host.release("v1", {"scripts/start": File("#!/bin/sh", 0o755), "a": "a"})
    hook = Hook(LifecycleEvent.APPLICATION_START, "scripts/start")
    host.deploy("d-1", release, hooks={hook.event: (hook,)})
    app = host.host / "app"
    assert not os.path.samefile(release.tree / "scripts/start", app / "scripts/start")
    assert os.path.samefile(release.tree / "a", app / "a")


def test_what_is_mapped_twice_is_two_files(host: FileHost) -> None:
    release = host.release("v1", {"conf/a": "a", "b": "b"})
    files = (("", host.host / "one"), ("conf", host.host / "two"))
    host.deploy("d-1", release, files=files)
    assert not os.path.samefile(host.host / "one/conf/a", host.host / "two/a")
    assert os.path.samefile(host.host / "one/b", release.tree / "b")


def test_a_mode_of_its_own_is_set_on_the_release_file_if_it_has_one_name(host: FileHost) -> None:
    release = host.release("v1", {"a": "a", "b": "b"})
    os.link(release.tree / "b", host.base / "another release has it, too")
    rule = Permission(object=str(host.host), mode=0o600)
    host.deploy("d-1", release, permissions=(rule,))
    app = host.host / "app"
    assert os.path.samefile(release.tree / "a", app / "a")
    assert not os.path.samefile(release.tree / "b", app / "b")
    assert {stat.S_IMODE((app / n).stat().st_mode) for n in "ab"} == {0o600}


def test_a_release_file_that_was_written_to_is_noticed(host: FileHost) -> None:
    release = host.release("v1", {"a": "a"})
    (release.tree / "a").write_text("evil")
    with pytest.raises(AgentError) as caught:
        host.deploy("d-1", release)
    assert caught.value.code is Code.RELEASE_DAMAGED


@pytest.mark.root
def test_a_release_file_that_a_service_owned_is_hashed(host: FileHost) -> None:
    """A hook's chown -R reaches the release through a hard link; times prove nothing then."""
    release = host.release("v1", {"a": "good", "b": "good"})
    os.chown(release.tree / "a", 65534, 65534)
    os.chown(release.tree / "b", 65534, 65534)
    deployed = host.deployment("d-1", release)
    deployed.install()
    assert (host.host / "app/a").owner() == "root"
    assert not os.path.samefile(release.tree / "a", host.host / "app/a")
    deployed.undo()
    (release.tree / "b").write_text("evil")
    os.utime(release.tree / "b", ns=(MTIME_NS, MTIME_NS))
    with pytest.raises(AgentError) as caught:
        deployed.install()
    assert caught.value.code is Code.RELEASE_DAMAGED
    assert not (host.host / "app/b").exists()


def test_a_running_program_is_replaced(host: FileHost) -> None:
    sleep = Path("/bin/sleep").read_bytes().decode("latin1")
    one = host.release("v1", {"run": File("", 0o755)})
    (one.tree / "run").write_bytes(sleep.encode("latin1"))
    os.utime(one.tree / "run", ns=(MTIME_NS, MTIME_NS))
    _index_again(one.index, one.tree / "run")
    host.deploy("d-1", one)
    with subprocess.Popen([host.host / "app/run", "60"]) as running:
        try:
            host.deploy("d-2", host.release("v2", {"run": File("two", 0o755)}), current=one)
            assert (host.host / "app/run").read_text() == "two"
            assert running.poll() is None
        finally:
            running.kill()


def _index_again(index: Path, file: Path) -> None:
    with sqlite3.connect(index) as database:
        digest = hashlib.sha256(file.read_bytes()).digest()
        database.execute("UPDATE entries SET size = ?, digest = ?", (file.stat().st_size, digest))
    database.close()


def test_a_symlink_is_replaced_itself(host: FileHost) -> None:
    app = host.host / "app"
    app.mkdir()
    (host.host / "elsewhere").write_text("not touched")
    (app / "a").symlink_to("../elsewhere")
    behavior = FileExistsBehavior.OVERWRITE
    host.deploy("d-1", host.release("v1", {"a": "a"}), file_exists_behavior=behavior)
    assert (app / "a").read_text() == "a"
    assert not (app / "a").is_symlink()
    assert (host.host / "elsewhere").read_text() == "not touched"


def test_files_of_others_in_our_folders_stay(host: FileHost) -> None:
    one = host.release("v1", {"log/.keep": "", "a": "a"})
    host.deploy("d-1", one)
    (host.host / "app/log/today").write_text("logged")
    host.deploy("d-2", host.release("v2", {"a": "a"}), current=one)
    assert (host.host / "app/log/today").read_text() == "logged"
    assert not (host.host / "app/log/.keep").exists()


def test_a_folder_becomes_a_file_and_back(host: FileHost) -> None:
    one = host.release("v1", {"x/deep/a": "a", "x/b": "b"})
    two = host.release("v2", {"x": "file"})
    three = host.release("v3", {"x": Link("nowhere")})
    host.deploy("d-1", one)
    host.deploy("d-2", two, current=one)
    assert (host.host / "app/x").read_text() == "file"
    host.deploy("d-3", one, current=two)
    assert (host.host / "app/x/deep/a").read_text() == "a"
    host.deploy("d-4", three, current=one)
    assert (host.host / "app/x").is_symlink()
    host.deploy("d-5", one, current=three)
    assert (host.host / "app/x/b").read_text() == "b"


def test_an_install_may_run_again(host: FileHost) -> None:
    one = host.release("v1", {**V1, "to-file/a": "a", "to-folder": "f", "l": Link("x")})
    host.deploy("d-1", one)
    two = host.release("v2", {**V2, "to-file": "f", "to-folder/a": "a", "l": Link("y")})
    deployed = host.deployment("d-2", two, current=one)
    deployed.install()
    deployed.install()
    app = host.host / "app"
    assert (app / "conf/a").read_text() == "a2"
    assert (app / "to-folder/a").read_text() == "a"
    assert (app / "to-file").read_text() == "f"
    assert (app / "l").readlink() == Path("y")


def test_what_a_hook_removed_before_the_install_is_installed(host: FileHost) -> None:
    """`rm -rf` of the target in BeforeInstall is common: the plan was made before it."""
    one = host.release("v1", V1)
    host.deploy("d-1", one)
    deployed = host.deployment("d-2", host.release("v2", V2), current=one)
    subprocess.run(["rm", "-rf", host.host / "app"], check=True)
    deployed.install()
    assert (host.host / "app/same").read_text() == "s"
    assert (host.host / "app/bin/run").read_text() == "two"


def test_a_folder_that_a_hook_made_before_the_install_is_merged_with(host: FileHost) -> None:
    deployed = host.deployment("d-1", host.release("v1", V1))
    (host.host / "app/conf").mkdir(parents=True)
    (host.host / "app/conf/mine").write_text("m")
    deployed.install()
    assert sorted(p.name for p in (host.host / "app/conf").iterdir()) == ["a", "b", "mine"]


def test_a_file_that_a_hook_made_before_the_install_is_a_conflict(host: FileHost) -> None:
    deployed = host.deployment("d-1", host.release("v1", V1))
    (host.host / "app/conf").mkdir(parents=True)
    (host.host / "app/conf/a").write_text("m")
    with pytest.raises(AgentError) as caught:
        deployed.install()
    assert caught.value.code is Code.INSTALL_FAILED
    assert str(host.host / "app/conf/a") in caught.value.details[0]
    assert (host.host / "app/conf/a").read_text() == "m"
    assert not (host.host / "app/bin").exists()


def test_a_symlink_put_on_the_way_after_the_plan_is_not_followed(host: FileHost) -> None:
    one = host.release("v1", {"data/a": "a"})
    host.deploy("d-1", one)
    deployed = host.deployment("d-2", host.release("v2", {"data/a": "b"}), current=one)
    (host.host / "elsewhere").mkdir()
    (host.host / "elsewhere/a").write_text("precious")
    (host.host / "app/data").rename(host.host / "app/moved")
    (host.host / "app/data").symlink_to(host.host / "elsewhere")
    with pytest.raises(AgentError):
        deployed.install()
    assert (host.host / "elsewhere/a").read_text() == "precious"


def test_a_refused_plan_lists_everything_at_once(host: FileHost) -> None:
    app = host.host / "app"
    app.mkdir()
    for name in "abc":
        (app / name).write_text("theirs")
    release = host.release("v1", {"a": "ours", "b": "ours", "c": "theirs", "d": "ours"})
    before = sorted(app.iterdir())
    with pytest.raises(AgentError) as caught:
        host.deploy("d-1", release, problems=("BeforeInstall x: no user y",))
    assert caught.value.code is Code.PLAN_REFUSED
    assert len(caught.value.details) == 3
    assert "OVERWRITE" in caught.value.remedy
    assert sorted(app.iterdir()) == before
    assert plan.plan_report(host.layout.work_dir("d-1") / "plan.db")["refused"]
