"""Files that the host has as the release's own: whatever is another file, the look names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from agent.files import linked, planfile
from agent.files.linked import LinkedLook
from agent.files.parts import Part, find_parts
from agent.model.appspec import AppSpec, FileMapping, Permission
from agent.model.release import Release
from agent.system.cancel import Cancel
from tests.file_host import FileHost

NAMES = [f"{folder}/{name}" for folder in ("a", "b", "b/deep", "c", "d") for name in "xyz"]
FILES = {name: f"in {name}" for name in NAMES}


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    """What is deployed to it are the FILES."""
    host = FileHost(state_dir)
    host.deploy("d-1", host.release("v1", FILES))
    return host


def linked_release(host: FileHost, name: str, files: dict[str, str]) -> Release:
    """A release as unpack leaves it: what v1 has still as its index says is linked from there."""
    new = host.release(name, files)
    old = host.layout.releases / "v1"
    for path in files:
        ours, theirs = new.tree / path, old / path
        if theirs.exists():
            one, other = (
                (each.st_mode, each.st_size, each.st_mtime_ns)
                for each in (ours.lstat(), theirs.lstat())
            )
            if one == other and ours.read_bytes() == theirs.read_bytes():
                ours.unlink()
                ours.hardlink_to(theirs)
    return new


def parts_of(host: FileHost, release: Release, *files: tuple[str, str]) -> list[Part]:
    """files: source, and destination below host/app; by default all of it."""
    app = host.host / "app"
    mappings = tuple(FileMapping(source, str(app / to)) for source, to in files or [("", "")])
    with planfile.making(host.base / "scratch.db", Cancel()) as plan:
        plan.execute("ATTACH DATABASE ? AS release", (str(release.index),))
        host.installed.attach(plan)
        return find_parts(plan, AppSpec("appspec.yml", files=mappings), "app")


def look(
    host: FileHost, release: Release, parts: list[Part], *, stop: bool = False
) -> LinkedLook | None:
    """What a look found, None where it did not come to its end; `changed` below host/app."""
    found = LinkedLook(release.tree, lambda: stop)
    is_whole = found.look(parts)
    found.changed = sorted(os.path.relpath(path, host.host / "app") for path in found.changed)
    return found if is_whole else None


def changed(host: FileHost, release: Release, *files: tuple[str, str]) -> list[str]:
    found = look(host, release, parts_of(host, release, *files))
    assert found is not None
    return found.changed


def test_what_is_linked_is_not_named(host: FileHost) -> None:
    new = linked_release(host, "v2", {**FILES, "b/x": "other", "e/f/new": "n"})
    found = look(host, new, parts_of(host, new))
    assert found is not None
    assert found.changed == ["b/x", "e/f/new"]
    app = host.host / "app"
    assert {"", "/a", "/b", "/b/deep", "/e/f"} <= {
        path.removeprefix(str(app)) for path in found.seen
    }
    assert found.seen[str(app / "e/f")] == (-1, None, None, None)
    assert found.seen[str(app / "a")][1:] == (0o755, os.geteuid(), os.getegid())


def spoil(app: Path) -> set[str]:
    """Every way in which a file can be another one; their names."""
    (app / "a/x").write_text("by a service")  # v1's own file, too
    (app / "a/y").chmod(0o600)
    (app / "a/z").unlink()
    (app / "a/z").write_text(FILES["a/z"])
    (app / "b/x").unlink()
    (app / "b/y").unlink()
    (app / "b/y").symlink_to("z")
    (app / "b/deep/x").rename(app / "b/deep/w")
    (app / "b/deep/y").rename(app / "b/deep/x")
    shutil.rmtree(app / "c")
    (app / "c").write_text("a file now")
    (app / "d").rename(app / "e")
    (app / "d").symlink_to("e")
    return {"a/x", "a/y", "a/z", "b/x", "b/y", "b/deep/x", "b/deep/y", "c/x", "c/y", "c/z"}


def test_what_is_another_file_is_named(host: FileHost) -> None:
    spoilt = spoil(host.host / "app")
    # where d leads to is what the plan wants the files of d in
    assert changed(host, linked_release(host, "v2", FILES)) == sorted(spoilt)


def test_a_link_on_the_way_is_not_followed(host: FileHost) -> None:
    """Somebody puts it there after the parts were found."""
    new = linked_release(host, "v2", FILES)
    parts = parts_of(host, new)
    (host.host / "app/b").rename(host.host / "app/moved")
    (host.host / "app/b").symlink_to("moved")
    found = look(host, new, parts)
    assert found is not None
    assert found.changed == sorted(name for name in NAMES if name.startswith("b/"))


@pytest.mark.parametrize("is_spoilt", [False, True])
def test_the_plan_is_the_same_as_by_a_look_at_every_file(
    host: FileHost, *, is_spoilt: bool
) -> None:
    if is_spoilt:
        spoil(host.host / "app")
    files = {**FILES, "b/z": "other", "new/er": "n"}
    new = linked_release(host, "v2", files)
    plans = []
    for name, is_just_linked in (("d-2", False), ("d-3", True)):
        deployed = host.deployment(name, new, is_just_linked=is_just_linked)
        with closing(sqlite3.connect(deployed.path)) as plan:
            rows = {
                what: plan.execute(f"SELECT {what} ORDER BY 1, 2, 3").fetchall()
                for what in (
                    "* FROM actions",
                    "* FROM findings",
                    "* FROM tally",
                    "path, mode, is_touched FROM seen WHERE changed_ns >= 0",
                )
            }
        plans.append({**rows, "planned": deployed.actions(), "summary": deployed.summary})
    for name, found in plans[0].items():
        assert found == plans[1][name], name


def test_with_permissions_every_file_is_looked_at(host: FileHost) -> None:
    """Mode and owner are not those of the release then: the same file is no proof."""
    app = host.host / "app"
    rules = (Permission(object=str(app), pattern="**", mode=0o600, types=("file",)),)
    one = host.release("v3", FILES)
    host.deploy("d-2", one, permissions=rules)
    two = host.release("v4", FILES)
    (app / "a/x").unlink()
    (app / "a/x").hardlink_to(two.tree / "a/x")  # by hand: its mode is 0644
    deployed = host.deployment("d-3", two, permissions=rules, is_just_linked=True)
    assert {path for path, action in deployed.actions().items() if action != "keep"} == {"app/a/x"}


def test_more_than_it_holds_in_memory(host: FileHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan looks at every file then."""
    new = linked_release(host, "v2", {**FILES, "b/x": "other", "b/z": "other"})
    monkeypatch.setattr(linked, "LIMIT", 3)
    assert (
        look(host, new, parts_of(host, new)) is None
    )  # three files in a folder, and another folder
    monkeypatch.setattr(linked, "LIMIT", 4)
    assert changed(host, new) == ["b/x", "b/z"]
    monkeypatch.setattr(linked, "LIMIT", 3)
    deployed = host.deployment("d-2", new, is_just_linked=True)
    assert {path for path, action in deployed.actions().items() if action != "keep"} == {
        "app/b/x",
        "app/b/z",
    }


def test_one_that_is_stopped_counts_for_nothing(host: FileHost) -> None:
    new = linked_release(host, "v2", FILES)
    assert look(host, new, parts_of(host, new), stop=True) is None


def test_sources_side_by_side(host: FileHost) -> None:
    """A file of its own is always named; a part knows nothing of what others bring."""
    new = linked_release(host, "v2", {**FILES, "b/deep/x": "other"})
    assert changed(host, new, ("a", "a"), ("b/deep", "b/deep"), ("c/x", "c")) == ["b/deep/x", "c/x"]


@pytest.mark.root
def test_on_another_device_numbers_tell_nothing(host: FileHost) -> None:
    new = linked_release(host, "v2", FILES)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host.host / "app/b"], check=True)
    try:
        found = changed(host, new)
    finally:
        subprocess.run(["umount", host.host / "app/b"], check=True)
    assert found == [name for name in sorted(NAMES) if name.startswith("b/")]
