"""Environment files are written as a whole, and what was there is put back just as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.environment import files
from agent.environment.files import Wanted
from agent.model.errors import AgentError, Code


@pytest.fixture
def work_dir(state_dir: Path) -> Path:
    folder = state_dir / "work"
    folder.mkdir()
    return folder


def seen(path: Path) -> tuple[object, ...]:
    """All of a file that matters."""
    if not path.is_symlink() and not path.exists():
        return ()
    status = path.lstat()
    content = os.readlink(path) if path.is_symlink() else path.read_text()
    marks = {} if path.is_symlink() else {name: os.getxattr(path, name) for name in _marks(path)}
    return content, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, marks


def _marks(path: Path) -> list[str]:
    return [name for name in os.listxattr(path) if name.startswith("user.")]


def test_all_kinds_are_put_back_twice_as_well(state_dir: Path, work_dir: Path) -> None:
    plain, link, going = (state_dir / name for name in ("plain", "link", "going"))
    new = state_dir / "made" / "deep" / "new"
    plain.write_text("old")
    plain.chmod(0o4750)
    os.setxattr(plain, "user.mark", b"kept")
    link.symlink_to("elsewhere")
    going.write_text("not wanted any more")
    os.utime(plain, ns=(1, 1_000_000_001))
    before = {path: seen(path) for path in (plain, link, going, new)}
    wanted = [
        Wanted(plain, b"new"),
        Wanted(link, b"new", mode=0o640),
        Wanted(going, None),
        Wanted(new, b"new"),
    ]
    assert files.install(work_dir, wanted) == 4
    assert files.install(work_dir, wanted) == 0
    assert [path.read_bytes() for path in (plain, link, new)] == [b"new"] * 3
    assert stat.S_IMODE(link.lstat().st_mode) == 0o640
    assert stat.S_ISREG(link.lstat().st_mode)
    assert not going.exists()
    for _ in range(2):
        assert files.undo(work_dir)
        assert {path: seen(path) for path in before} == before
        assert not (state_dir / "made").exists()
    # after a crash in the undo, it may also be gone on with from the middle
    files.install(work_dir, wanted)
    plain.unlink()
    files.undo(work_dir)
    assert {path: seen(path) for path in before} == before
    files.forget(work_dir)
    assert not files.undo(work_dir)
    assert os.listdir(work_dir) == []


def test_folder_in_the_way_is_refused_before_anything_is_written(
    state_dir: Path, work_dir: Path
) -> None:
    (state_dir / "folder").mkdir()
    with pytest.raises(AgentError, match="it is a folder") as caught:
        files.install(work_dir, [Wanted(state_dir / "a", b"x"), Wanted(state_dir / "folder", b"")])
    assert caught.value.code is Code.INSTALL_FAILED
    assert not (state_dir / "a").exists()
    assert not files.undo(work_dir)


def test_unknown_owner_is_told(state_dir: Path, work_dir: Path) -> None:
    wanted = Wanted(state_dir / "a", b"x", owner="no-such-user")
    with pytest.raises(AgentError, match="no-such-user"):
        files.install(work_dir, [wanted])
    files.undo(work_dir)
    assert not (state_dir / "a").exists()


@pytest.mark.root
def test_owner_and_group(state_dir: Path, work_dir: Path) -> None:
    files.install(work_dir, [Wanted(state_dir / "a", b"x", owner="nobody", group="daemon")])
    status = (state_dir / "a").stat()
    assert (status.st_uid, status.st_gid) == (65534, 1)
