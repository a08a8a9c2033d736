"""Plans: what would be done, whose the files in the way are, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from agent.files import owners, plan
from agent.model.appspec import AppSpec, FileExistsBehavior, FileMapping
from agent.model.errors import AgentError, Code, Interrupted
from agent.model.settings import Limits
from agent.system import process
from agent.system.cancel import Cancel
from agent.system.process import Captured
from tests.file_host import FEW, FileHost, Link, Tools
from tests.trees import fingerprint
from tests.waiting import wait_until

OVERWRITE, RETAIN = FileExistsBehavior.OVERWRITE, FileExistsBehavior.RETAIN


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


def there(host: FileHost, **files: str) -> None:
    """Files of somebody else in host/app."""
    (host.host / "app").mkdir(exist_ok=True)
    for name, text in files.items():
        (host.host / "app" / name).write_text(text)


def test_a_plan_touches_nothing(host: FileHost) -> None:
    there(host, a="theirs")
    before = fingerprint(host.host)
    host.deployment("d-1", host.release("v1", {"a": "ours", "b/c": "c"}))
    assert fingerprint(host.host) == before


def test_a_file_that_is_the_same_is_adopted(host: FileHost) -> None:
    there(host, a="same", b="differs")
    os.symlink("a", host.host / "app/l")
    release = host.release("v1", {"a": "same", "b": "ours", "l": Link("a")})
    deployed = host.deployment("d-1", release)
    assert deployed.actions() == {"app/a": "adopt", "app/b": "conflict", "app/l": "adopt"}
    [(path, owner, text)] = deployed.findings("conflict")
    assert (path, owner) == (str(host.host / "app/b"), "unknown")
    for content in (b"differs", b"ours"):
        assert hashlib.sha256(content).hexdigest()[:12] in text


def test_what_was_adopted_is_kept_and_removed_later(host: FileHost) -> None:
    there(host, a="same")
    file = (host.host / "app/a").stat()
    one = host.release("v1", {"a": "same"})
    host.deploy("d-1", one)
    assert (host.host / "app/a").stat().st_ino == file.st_ino
    again = host.deploy("d-2", one, current=one)
    assert again.actions() == {"app/a": "keep"}
    host.deploy("d-3", host.release("v2", {"b": "b"}), current=one)
    assert not (host.host / "app/a").exists()


def test_a_same_file_with_another_mode_is_replaced(host: FileHost) -> None:
    there(host, a="same")
    (host.host / "app/a").chmod(0o600)
    deployed = host.deploy("d-1", host.release("v1", {"a": "same"}))
    assert deployed.actions() == {"app/a": "replace"}
    assert (host.host / "app/a").stat().st_mode & 0o777 == 0o644


def test_overwrite_and_retain(host: FileHost) -> None:
    there(host, a="theirs", b="same")
    release = host.release("v1", {"a": "ours", "b": "same", "c": "c"})
    retained = host.deployment("d-1", release, file_exists_behavior=RETAIN)
    assert retained.actions() == {"app/a": "retain", "app/b": "retain", "app/c": "add"}
    retained.install()
    retained.commit()
    assert (host.host / "app/a").read_text() == "theirs"
    overwritten = host.deploy("d-2", release, current=release, file_exists_behavior=OVERWRITE)
    assert overwritten.actions() == {"app/a": "replace", "app/b": "adopt", "app/c": "keep"}
    assert (host.host / "app/a").read_text() == "ours"


def test_what_was_retained_is_not_removed_later(host: FileHost) -> None:
    there(host, a="theirs")
    one = host.release("v1", {"a": "ours", "b": "b"})
    host.deploy("d-1", one, file_exists_behavior=RETAIN)
    host.deploy("d-2", host.release("v2", {"c": "c"}), current=one)
    assert sorted(p.name for p in (host.host / "app").iterdir()) == ["a", "c"]


@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_a_folder_or_a_pipe_is_never_replaced(host: FileHost, behavior: FileExistsBehavior) -> None:
    (host.host / "app/a").mkdir(parents=True)
    os.mkfifo(host.host / "app/b")
    (host.host / "app/c").write_text("c")
    release = host.release("v1", {"a": "a", "b": "b", "c/d": "d"})
    deployed = host.deployment("d-1", release, file_exists_behavior=behavior)
    assert set(deployed.actions().values()) == {"conflict", "add"}
    assert len(deployed.findings("conflict")) == 3


def test_another_application_keeps_what_it_has(host: FileHost) -> None:
    files = (("", host.host / "app"),)
    mine = host.release("v1", {"a": "a", "sub/b": "b"})
    host.deploy("d-1", mine, files=files, application="one")
    other = host.release("v2", {"a": "a", "sub/c": "c"})
    options = {"files": files, "application": "two", "file_exists_behavior": OVERWRITE}
    deployed = host.deployment("d-2", other, **options)
    [(path, owner, _)] = deployed.findings("conflict")
    assert (path, owner) == (str(host.host / "app/a"), "application one")
    with pytest.raises(AgentError) as caught:
        plan.refuse(deployed.path)
    assert "destination of its own" in caught.value.remedy
    (host.host / "app/a").unlink()  # though it is gone, it is not free to take
    assert host.deployment("d-3", other, **options).findings("conflict")


def test_folders_are_shared_between_applications(host: FileHost) -> None:
    files = (("", host.host / "app"),)
    one = host.release("v1", {"sub/a": "a"})
    host.deploy("d-1", one, files=files, application="one")
    two = host.release("v2", {"sub/b": "b"})
    host.deploy("d-2", two, files=files, application="two")
    host.deploy("d-3", host.release("v3", {"c": "c"}), files=files, application="one")
    assert (host.host / "app/sub/b").read_text() == "b"


def test_files_of_dpkg_are_named(host: FileHost) -> None:
    there(host, a="theirs")
    path = str(host.host / "app/a")
    tools = Tools(dpkg=Captured(1, f"nginx-common, nginx: {path}\n", "dpkg-query: no path found"))
    release = host.release("v1", {"a": "ours"})
    deployed = host.deployment("d-1", release, capture=tools)
    assert deployed.findings("conflict")[0][1] == "dpkg nginx-common, nginx"
    warned = host.deployment("d-2", release, capture=tools, file_exists_behavior=OVERWRITE)
    assert "dpkg nginx-common" in warned.findings("warning")[0][2]
    assert len(tools.asked) == 2


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg on this host")
def test_dpkg_knows_a_path_by_its_old_name() -> None:
    paths = ["/usr/bin/dpkg", "/usr/bin/ls", "/nowhere/*[x]"]
    found = owners.find_owners(paths, process.capture_blocking)
    assert found == {"/usr/bin/dpkg": "dpkg dpkg", "/usr/bin/ls": "dpkg coreutils"}


def test_changes_on_the_host_are_warned_of(host: FileHost) -> None:
    one = host.release("v1", {"a": "a", "b": "b", "c": "c", "d": "d"})
    host.deploy("d-1", one)
    app = host.host / "app"
    for name in ("a", "b"):
        (app / name).unlink()
        (app / name).write_text("edited")
    (app / "d").unlink()
    deployed = host.deployment("d-2", host.release("v2", {"a": "a", "c": "c", "d": "d"}))
    assert deployed.actions() == {
        "app": "keep",
        "app/a": "replace",
        "app/b": "remove",
        "app/c": "keep",
        "app/d": "add",
    }
    assert [path for path, _, _ in deployed.findings("warning")] == [str(app / "a"), str(app / "b")]


def test_two_sources_for_one_path(host: FileHost) -> None:
    release = host.release("v1", {"x/a": "1", "y/a": "2", "y/b": "b", "z/b/c": "c"})
    files = tuple((name, host.host / "app") for name in "xyz")
    problems = host.deployment("d-1", release, files=files).findings("problem")
    assert [path for path, _, _ in problems] == [
        str(host.host / "app/a"),
        str(host.host / "app/b"),
    ]


def test_one_destination_for_several_sources(host: FileHost) -> None:
    release = host.release("v1", {"x/s/a": "a", "y/s/b": "b", "c": "c"})
    files = (("x", host.host / "app"), ("y", host.host / "app"), ("c", host.host / "app"))
    host.deploy("d-1", release, files=files)
    assert sorted(p.name for p in (host.host / "app").rglob("*")) == ["a", "b", "c", "s"]


def test_a_symlinked_folder_is_followed(host: FileHost) -> None:
    real = host.host / "real"
    (real / "inner").mkdir(parents=True)
    (host.host / "app").symlink_to("real")
    (host.host / "inner-elsewhere").mkdir()
    (real / "inner/linked").symlink_to(host.host / "inner-elsewhere")
    one = host.release("v1", {"inner/linked/deep/a": "a", "inner/b": "b"})
    deployed = host.deploy("d-1", one)
    assert deployed.actions()["inner-elsewhere/deep/a"] == "add"
    assert (host.host / "inner-elsewhere/deep/a").read_text() == "a"
    assert (real / "inner/b").read_text() == "b"
    assert (real / "inner/linked").is_symlink()
    host.deploy("d-2", host.release("v2", {"inner/b": "b"}), current=one)
    assert not (host.host / "inner-elsewhere/deep").exists()


def test_a_link_of_the_bundle_is_never_followed(host: FileHost) -> None:
    (host.host / "target").mkdir()
    link = {"x/d": Link("../target"), "y/a": "a"}
    one = host.release("v1", link)
    both = (("x", host.host / "app"), ("y", host.host / "app/d"))
    first = host.deployment("d-1", one, files=both)
    assert first.findings("problem")
    host.deploy("d-2", one, files=(("x", host.host / "app"),))
    again = host.deployment("d-3", one, files=both, current=one)
    assert again.findings("problem")
    host.deploy("d-4", one, files=(("y", host.host / "app/d"),), current=one)
    assert not (host.host / "app/d").is_symlink()
    assert (host.host / "app/d/a").read_text() == "a"
    assert not list((host.host / "target").iterdir())


@pytest.mark.root
def test_a_symlink_of_a_user_to_what_is_not_theirs_is_not_followed(host: FileHost) -> None:
    (host.host / "precious").mkdir()
    (host.host / "app").symlink_to("precious")
    os.chown(host.host / "app", 65534, 65534, follow_symlinks=False)
    release = host.release("v1", {"a": "a"})
    [(path, _, text)] = host.deployment("d-1", release).findings("problem")
    assert path == str(host.host / "app")
    assert "uid 65534" in text
    os.chown(host.host / "precious", 65534, 65534)
    assert not host.deployment("d-2", release).findings("problem")


@pytest.mark.parametrize("target", ["app", "nowhere", "../host/file"])
def test_a_symlink_that_leads_to_no_folder(host: FileHost, target: str) -> None:
    (host.host / "file").write_text("")
    (host.host / "app").symlink_to(target)
    deployed = host.deployment("d-1", host.release("v1", {"a": "a"}))
    assert deployed.findings("problem")


def test_a_file_where_a_folder_is_needed(host: FileHost) -> None:
    (host.host / "app").write_text("")
    deployed = host.deployment("d-1", host.release("v1", {"a": "a"}))
    [(path, _, text)] = deployed.findings("conflict")
    assert path == str(host.host / "app")
    assert "a file here, and a folder in the bundle" in text


@pytest.mark.parametrize("destination", ["relative", "/a/../b", ""])
def test_odd_destinations(host: FileHost, destination: str) -> None:
    release = host.release("v1", {"a": "a"})
    files = (("", destination or "~/x"),)
    assert host.deployment("d-1", release, files=files).findings("problem")


def test_a_bundle_without_files(host: FileHost) -> None:
    deployed = host.deploy("d-1", host.release("v1", {"a": "a"}), files=())
    assert deployed.summary.counts == {}


def test_the_root_as_destination(host: FileHost) -> None:
    inside = str(host.host).lstrip("/")
    before = fingerprint(host.host)
    release = host.release("v1", {f"{inside}/app/a": "a"})
    deployed = host.deployment("d-1", release, files=(("", "/"),))
    assert deployed.actions() == {"app": "mkdir", "app/a": "add"}
    deployed.install()
    assert (host.host / "app/a").read_text() == "a"
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_source_that_is_not_there(host: FileHost) -> None:
    files = (("b", host.host),)
    assert host.deployment("d-1", host.release("v1", {"a": "a"}), files=files).findings("problem")


def test_the_agents_own_folder(host: FileHost) -> None:
    release = host.release("v1", {"a": "a"})
    files = (("", host.layout.state_dir / "bundles"),)
    assert host.deployment("d-1", release, files=files).findings("problem")


def test_space_and_inodes(host: FileHost) -> None:
    release = host.release("v1", {"a": "a"})
    greedy = Limits(free_bytes=2**60, free_inodes=2**60)
    found = host.deployment("d-1", release, limits=greedy)
    texts = [text for _, _, text in found.findings("problem")]
    assert ["bytes" in text or "inodes" in text for text in texts] == [True, True]
    report = plan.plan_report(found.path)
    assert report["refused"]
    assert report["space"][0]["needed_bytes"] > 0


def test_the_report(host: FileHost) -> None:
    release = host.release("v1", {f"d/{n}": str(n) for n in range(10)})
    report = plan.plan_report(host.deployment("d-1", release).path, limit=3)
    assert report["counts"]["add"] == 10
    assert report["counts"]["mkdir"] == 2
    assert len(report["changes"]) == 3
    assert report["truncated"] == 9
    assert report["changes"][0] == {
        "action": "mkdir",
        "path": str(host.host / "app"),
        "kind": "dir",
        "detail": "",
    }
    assert not report["refused"]


def test_a_plan_can_be_stopped(host: FileHost) -> None:
    cancel = Cancel()
    cancel.set("asked to")
    release = host.release("v1", {"a": "a"})
    deployed = host.deployment("d-1", release)
    request = plan.PlanRequest(
        application="app",
        deployment_id="d-1",
        release=release,
        current=None,
        appspec=AppSpec("appspec.yml", files=(FileMapping("", str(host.host)),)),
        work_dir=deployed.work_dir,
        state_dir=host.layout.state_dir,
        limits=FEW,
    )
    with pytest.raises(Interrupted):
        plan.make_plan(request, host.installed, cancel=cancel)


@pytest.mark.slow
def test_many_conflicts_are_all_counted(host: FileHost) -> None:
    names = {f"f{n}": "theirs" for n in range(1200)}
    there(host, **names)
    deployed = host.deployment("d-1", host.release("v1", dict.fromkeys(names, "ours")))
    with pytest.raises(AgentError) as caught:
        plan.refuse(deployed.path)
    assert "1200 files" in caught.value.message
    assert len(caught.value.details) == 1001
    assert caught.value.code is Code.PLAN_REFUSED


def test_the_second_look_sees_what_a_hook_did_to_settled_folders(host: FileHost) -> None:
    one = host.release("v1", {f"d{n}/{m}": "x" for n in range(3) for m in range(3)})
    host.deploy("d-1", one)
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 0.15)  # folders changed just now are looked at
    deployed = host.deployment("d-2", one, current=one)
    (host.host / "app/d1/2").unlink()
    (host.host / "app/d2/1").unlink()
    (host.host / "app/d2/1").write_text("by a hook")
    assert deployed.install() == 2
    assert {(host.host / f"app/d{n}/{m}").read_text() for n in range(3) for m in range(3)} == {"x"}
