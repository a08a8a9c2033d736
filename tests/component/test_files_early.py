"""The early look at committed files: whatever is not as it was committed, the plan finds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.files import early
from agent.system.cancel import Cancel
from tests.file_host import FileHost

FILES = {f"{folder}/{name}": f"{folder}{name}" for folder in "abcd" for name in "xyz"}


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    """What is deployed to it are the FILES."""
    host = FileHost(state_dir)
    host.deploy("d-1", host.release("v1", FILES))
    return host


def look(host: FileHost) -> early.EarlyLook:
    with early.looking(host.installed, "app", Cancel()) as found:
        found.join()
    return found


def spoil(app: Path) -> None:
    """Every way in which a file can be another one."""
    (app / "a/x").write_text("by a service")
    (app / "a/y").chmod(0o600)
    os.utime(app / "a/z", ns=(0, 0))
    (app / "b/x").unlink()
    (app / "b/y").unlink()
    (app / "b/y").symlink_to("z")
    shutil.rmtree(app / "c")
    (app / "d").rename(app / "e")
    (app / "d").symlink_to("e")


SPOILT = {name for name in FILES if name != "b/z"}


def test_it_finds_every_change(host: FileHost) -> None:
    assert not look(host).changed
    spoil(host.host / "app")
    found = look(host)
    assert found.is_whole
    assert {os.path.relpath(path, host.host / "app") for path in found.changed} == SPOILT
    assert found.seen[str(host.host / "app/c")] == (-1, None, None, None)


@pytest.mark.parametrize("limit", [5000, 3])
def test_a_plan_is_the_same_whether_the_look_came_to_its_end(
    host: FileHost, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "CHANGED_LIMIT", limit)
    spoil(host.host / "app")
    assert look(host).is_whole == (limit > 3)
    plan = host.deployment("d-2", host.release("v2", {**FILES, "b/new": "new"}))
    expected = dict.fromkeys(FILES, "add") | {"a/x": "replace", "a/y": "replace", "a/z": "replace"}
    expected |= {"b/y": "replace", "b/z": "keep", "b/new": "add"}
    expected |= dict.fromkeys(("d/x", "d/y", "d/z"), "remove")  # they go where the link leads
    found = plan.actions()
    assert {path: found[f"app/{path}"] for path in expected} == expected
    assert plan.summary.counts["keep"] == 4  # b/z, and the folders that are there


def test_a_folder_that_changed_after_the_look_is_looked_into_again(host: FileHost) -> None:
    app = host.host / "app"
    plan = host.deployment("d-2", host.release("v2", {**FILES, "a/x": "new"}))
    (app / "b/x").unlink()
    (app / "b/y").rename(app / "b/moved")
    plan.install()
    assert (app / "b/x").read_text() == "bx"
    assert (app / "b/y").read_text() == "by"


def test_a_cancelled_look_counts_for_nothing(host: FileHost) -> None:
    cancel = Cancel()
    cancel.set("stopped")
    with early.looking(host.installed, "app", cancel) as found:
        found.join()
    assert not found.is_whole
