"""Files are made by a second process when there are many, and it is nobody's burden."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.archive.make_queue import MakeQueue
from agent.archive.maker import Wish
from agent.model.errors import Code, TransientError
from agent.system import process
from tests import waiting
from tests.unpacking import MAKERS, assert_index_matches, listing, unpack_bundle

pytestmark = pytest.mark.slow

MODE, MTIME_NS = 0o644, 10**18
MANY = 1500


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """An old tree with the folder `in` and many files in it, and a new one with that folder."""
    for tree in ("old", "new"):
        (tmp_path / tree / "in").mkdir(parents=True)
    for number in range(MANY):
        make_file(tmp_path / "old/in" / str(number))
    return tmp_path / "old", tmp_path / "new"


def make_file(path: Path) -> None:
    path.write_bytes(b"12")
    path.chmod(MODE)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))


def wish(number: int) -> Wish:
    return "in", str(number), MODE, 2, MTIME_NS, None


def wishes(first: int, beyond: int) -> list[Wish]:
    return [wish(number) for number in range(first, beyond)]


def second_process(queue: MakeQueue) -> int:
    """Put as many wishes as bring it to life, and its number."""
    before = process.children.pids()
    queue.put(wishes(0, 1200))
    queue.put(wishes(1200, 1202))
    (pid,) = process.children.pids() - before
    return pid


def test_answers_come_in_order_whoever_links(trees: tuple[Path, Path]) -> None:
    old, new = trees
    (old / "in/3").write_bytes(b"xx")
    (old / "in/1201").chmod(0o600)
    (old / "in/1203").unlink()
    (old / "in/1203").symlink_to("1204")
    (new / "in/1204").touch()
    with MakeQueue(new, old, exact=True) as queue:
        pid = second_process(queue)
        below_a_file = ("in/1205", "f", MODE, 2, MTIME_NS, b"12")
        queue.put([*wishes(1202, 1206), below_a_file, ("no/where", "f", MODE, 2, MTIME_NS, b"12")])
        queue.put([("in", "new", 0o750, 3, MTIME_NS, b"new"), ("in", "0", MODE, 2, MTIME_NS, b"")])
        assert queue.take() == [3]
        assert queue.take() == [1]
        assert queue.take() == [1, 2, 4]
        assert queue.take() == [1]
    assert not Path(f"/proc/{pid}").exists()
    assert (new / "in/1205").samefile(old / "in/1205")
    assert {"3", "1201", "1203"}.isdisjoint(os.listdir(new / "in"))
    assert len(os.listdir(new / "in")) == 1206 - 3 + 1
    assert (new / "in/0").read_bytes() == b"12"
    assert (new / "no/where/f").read_bytes() == b"12"
    assert listing(new / "in")["new"] == ("file", "0o750", b"new", MTIME_NS)


def test_a_folder_that_is_a_link_is_not_followed(trees: tuple[Path, Path]) -> None:
    old, new = trees
    (new / "in").rmdir()
    (new / "in").symlink_to(new.parent)
    with MakeQueue(new, old, exact=True) as queue:
        second_process(queue)
        assert queue.take() == list(range(1200))
        assert queue.take() == [0, 1]
    assert not (new.parent / "0").exists()


def test_the_end_of_the_second_process_is_an_error_that_may_pass(trees: tuple[Path, Path]) -> None:
    with MakeQueue(*reversed(trees), exact=True) as queue:
        pid = second_process(queue)
        queue.take()
        queue.take()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TransientError, match="ended by SIGKILL"):
            ask_again(queue)
    assert pid not in process.children.pids()


def ask_again(queue: MakeQueue) -> None:
    for _ in range(10):  # the signal may arrive after the first
        queue.put(wishes(1202, 1203))
        queue.take()


def test_without_a_second_process_it_goes_on_alone(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with MakeQueue(*reversed(trees), exact=True) as queue:
        queue.put(wishes(0, 1200))
        queue.put(wishes(1200, MANY))
        assert queue.take() == queue.take() == []
    assert len(os.listdir(trees[1] / "in")) == MANY


AGENT = """
import sys, pathlib
from agent.archive.make_queue import MakeQueue
from agent.system import process
old, new = map(pathlib.Path, sys.argv[1:])
queue = MakeQueue(new, old, exact=True)
for _ in range(2):
    queue.put([("in", "0", 0, 0, 0, None)] * 1200)
print(*process.children.pids(), flush=True)
sys.stdin.read()
"""


def test_the_second_process_ends_when_the_agent_is_killed(trees: tuple[Path, Path]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, *map(str, trees)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        agent.kill()
    waiting.wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whoever inherits it here need not reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_modes_are_as_asked_for_whatever_the_umask(trees: tuple[Path, Path], umask: int) -> None:
    new = trees[1]
    before = os.umask(umask)
    try:
        with MakeQueue(new, None, exact=umask == 0o022) as queue:
            second_process(queue)
            queue.put([("in/new", "new", 0o755, 3, MTIME_NS, b"new")])
            assert queue.take() == list(range(1200))  # there is no old release
            assert queue.take() == [0, 1]
            assert queue.take() == []
    finally:
        os.umask(before)
    assert listing(new / "in") == {
        "new": ("dir", "0o755"),
        "new/new": ("file", "0o755", b"new", MTIME_NS),
    }


@pytest.mark.root
def test_a_full_disk_is_told_as_such_and_leaves_no_half_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
    try:
        files = {f"f/{number}": bytes(4096) for number in range(3000)}
        (disk / "bundle").write_bytes(MAKERS["tgz"](files))
        with pytest.raises(TransientError) as caught:
            unpack_bundle(disk / "bundle")
        assert caught.value.code is Code.DISK_FULL
        assert not process.children.pids()
        sizes = {file.stat().st_size for file in (disk / "new/f").iterdir()}
        assert sizes <= {0, 4096}  # 0: the one that the error tells of
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_big_bundle_comes_out_the_same(kind: str, tmp_path: Path) -> None:
    files = {f"{number // 9}/{number}": b"%d" % number for number in range(3 * MANY)}
    (tmp_path / "old.bundle").write_bytes(MAKERS[kind](files))
    unpack_bundle(tmp_path / "old.bundle", "old")
    for number in (0, 1500, 4000):
        files[f"{number // 9}/{number}"] = b"other"
    for number in (9, 1509, 4499):
        (tmp_path / f"old/{number // 9}/{number}").write_bytes(b"by a service")
    (tmp_path / "new.bundle").write_bytes(MAKERS[kind](files))
    reuse = (tmp_path / "old", tmp_path / "old.index")
    assert unpack_bundle(tmp_path / "new.bundle", reuse=reuse).reused == 3 * MANY - 6
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")
    found = listing(tmp_path / "new")
    assert {path: entry[2] for path, entry in found.items() if entry[0] == "file"} == files
    assert not process.children.pids()
