"""Files that are wanted as they were committed: they are no rows of a plan, and yet part of it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.files import planfile, unchanged
from agent.model.appspec import Permission
from agent.traffic import definitions
from agent.units import unitfiles
from tests.file_host import Deployed, FileHost
from tests.trees import fingerprint

FILES = {"a": "a", "conf/b": "b", "conf/c": "c", "d/e/f": "f"}
FILES_BELOW = [f"app/{path}" for path in FILES]


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    """What is deployed to it are the FILES."""
    host = FileHost(state_dir)
    host.deploy("d-1", host.release("v1", FILES))
    return host


def rows(deployed: Deployed) -> set[str]:
    """The files that are rows of the plan, below app."""
    with planfile.opened(deployed.path) as plan:
        found = plan.execute("SELECT path FROM actions WHERE kind = 'file'").fetchall()
    return {path.removeprefix(f"{deployed.file_host.host}/app/") for (path,) in found}


def test_they_are_counted_and_listed_without_rows(host: FileHost) -> None:
    new = host.release("v2", {**FILES, "conf/c": "other", "new": "n"})
    deployed = host.deployment("d-2", new)
    assert rows(deployed) == {"conf/c", "new"}
    assert deployed.summary.counts["keep"] == 3 + 4  # with app, app/conf, app/d and app/d/e
    actions = deployed.actions()
    assert {path: actions[f"app/{path}"] for path in ("a", "conf/b", "d/e/f")} == {
        "a": "keep",
        "conf/b": "keep",
        "d/e/f": "keep",
    }


def test_what_is_wanted_no_more_is_told_from_them(host: FileHost) -> None:
    new = host.release("v2", {"a": "a", "conf/b": "b"})
    deployed = host.deployment("d-2", new)
    assert rows(deployed) == {"conf/c", "d/e/f"}
    deployed.install()
    deployed.commit()
    assert fingerprint(host.host).keys() == {".", "app", "app/a", "app/conf", "app/conf/b"}
    assert host.installed.owner(str(host.host / "app/a")) == "app"
    assert host.installed.owner(str(host.host / "app/conf/c")) is None


def test_two_sources_for_one_of_them_are_refused(host: FileHost) -> None:
    new = host.release("v2", {**FILES, "other/b": "b"})
    app = host.host / "app"
    for name, files in {
        "d-2": (("", app), ("other", app / "conf")),
        "d-3": (("other", app / "conf"), ("", app)),
        "d-4": (("", app), ("other/b", app / "conf")),
    }.items():
        deployed = host.deployment(name, new, files=files)
        assert [path for path, _, _ in deployed.findings("problem")] == [str(app / "conf/b")]


def test_sources_side_by_side_in_one_folder(host: FileHost) -> None:
    app = host.host / "app"
    new = host.release("v2", {"x/a": "a", "y/c": "c", "y/b": "b", "z/f": "f"})
    files = (("x", app), ("y/b", app / "conf"), ("y/c", app / "conf"), ("z", app / "d/e"))
    deployed = host.deployment("d-2", new, files=files)
    assert not deployed.findings("problem")
    assert set(deployed.actions().values()) == {"keep"}
    deployed.install()
    deployed.commit()
    again = host.deployment("d-3", new, files=files)
    assert set(again.actions().values()) == {"keep"}


def test_permissions_meet_them(host: FileHost) -> None:
    app = host.host / "app"
    rules = (Permission(object=str(app / "conf"), mode=0o644, types=("file",)),)
    deployed = host.deployment("d-2", host.release("v2", FILES), permissions=rules)
    assert rows(deployed) == set()
    assert not deployed.findings("warning")
    rules = (Permission(object=str(app / "a"), mode=0o644, pattern="*"),)
    deployed = host.deployment("d-3", host.release("v3", FILES), permissions=rules)
    assert [path for path, _, _ in deployed.findings("problem")] == [str(app / "a")]


def test_who_asks_the_plan_for_a_path_is_told_of_them(host: FileHost) -> None:
    app = host.host / "app"
    files = {**FILES, "consul.d/web.json": "{}"}
    host.deploy("d-2", host.release("v2", files))
    deployed = host.deployment("d-3", host.release("v3", files))
    assert rows(deployed) == set()
    found = definitions.find_planned(deployed.path, str(app / "consul.d"))
    assert found == ((str(app / "consul.d/web.json"),), False)
    with planfile.opened(deployed.path) as plan:
        assert unitfiles.find_program(plan, str(app / "a")) == unitfiles.Program(
            is_wanted=True, is_executable=False
        )


def test_those_that_a_hook_removed_are_linked_again(host: FileHost) -> None:
    new = host.release("v2", FILES)
    deployed = host.deployment("d-2", new)
    shutil.rmtree(host.host / "app/conf")
    (host.host / "app/d/e/f").unlink()
    assert deployed.install() == 4
    for path in ("conf/b", "conf/c", "d/e/f"):
        assert (host.host / "app" / path).samefile(new.tree / path)


def test_a_plan_of_the_version_before_is_undone(host: FileHost) -> None:
    """The agent may be upgraded while a deployment is on its way: every file had its row then."""
    before = fingerprint(host.host)
    deployed = host.deployment("d-2", host.release("v2", {**FILES, "a": "new"}))
    with planfile.opened(deployed.path) as plan:
        assert unchanged.take_in(plan, "1") == 3
    with closing(sqlite3.connect(deployed.path)) as plan:
        plan.execute("DELETE FROM words WHERE name = 'committed'")
        plan.execute("PRAGMA user_version = 1")
        plan.commit()
    deployed.install()
    shutil.rmtree(host.host / "app/conf")
    deployed.undo()
    after = fingerprint(host.host)
    assert after.keys() == before.keys()
    assert {path: after[path] for path in FILES_BELOW} == {p: before[p] for p in FILES_BELOW}
