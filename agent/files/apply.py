"""Carry out a plan: every file is made ready beside its target and renamed over it.

The plan is the undo journal, too. It is on the disk before anything is touched, and what is kept
has a name that follows from its path: so the undo needs no note of how far this came.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from agent.files import compare, make, plan, planfile, selinux, volumes, walk
from agent.files.choose import Action
from agent.files.kept import NOT_LINKABLE, Kept, kept_name, save_folder
from agent.files.make import Row
from agent.files.owners import Capture
from agent.model.appspec import FileExistsBehavior
from agent.model.errors import AgentError, Code, from_os_error
from agent.system import durable
from agent.system.cancel import Cancel

Progress = Callable[[int, int], None]

_CHECKED = 500  # files between two looks at cancel


def install(work_dir: Path, *, capture: Capture, progress: Progress, cancel: Cancel) -> int:
    """Carry out work_dir/plan.db; the number of paths that changed. Blocks; may run again.

    The host is compared once more before the first change, since hooks ran after the plan was
    made. Raises AgentError; what was done until then is taken back by restore.undo.
    """
    try:
        return _install(work_dir, capture, progress, cancel)
    except OSError as error:
        doing = f"look at {error.filename}" if error.filename else "install the files"
        raise from_os_error(error, doing, code=Code.INSTALL_FAILED) from error


def _install(work_dir: Path, capture: Capture, progress: Progress, cancel: Cancel) -> int:
    with planfile.opened(work_dir / planfile.NAME, cancel) as plan_:
        words = planfile.load_words(plan_)
        if "started" not in words:
            _prepare(plan_, words, cancel)
        installer = _Installer(
            plan_, work_dir, words, capture=capture, progress=progress, cancel=cancel
        )
        with closing(installer):
            changed = installer.run()
        sync(plan_, work_dir)
    return changed


def _prepare(plan_: sqlite3.Connection, words: dict[str, str], cancel: Cancel) -> None:
    """Compare again, and save what the undo has to know of the folders that will change."""
    with planfile.transaction(plan_):
        found = compare.compare_again(plan_, FileExistsBehavior(words["behavior"]), cancel)
        plan.refuse_late(plan_)
        volumes.mark_copies(plan_, volumes.Volumes(), Path(words["release"]))
        plan_.execute("DELETE FROM folders")
        own = plan_.execute(
            f"SELECT path FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            " AND was = 'dir' AND action IN ('replace', 'rmdir')"
        )
        for (path,) in own.fetchall():
            save_folder(plan_, path, is_own=True)
        for folder in sorted(found.touched):
            save_folder(plan_, folder)
        planfile.save_words(plan_, started="yes", undoing="", undone="")


def sync(plan_: sqlite3.Connection, work_dir: Path) -> None:
    """Bring to the disk what changed, one call for each file system. Raises AgentError."""
    synced = set()
    paths = [row[0] for row in plan_.execute("SELECT path FROM folders ORDER BY path")]
    for path in (*paths, str(work_dir)):
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) and status.st_dev not in synced:
                synced.add(status.st_dev)
                durable.sync_file_system(Path(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise from_os_error(error, f"sync {path}", code=Code.INSTALL_FAILED) from error


class _Installer:
    """One install on its way: what is open, and where it came to."""

    def __init__(
        self,
        plan_: sqlite3.Connection,
        work_dir: Path,
        words: dict[str, str],
        *,
        capture: Capture,
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._plan = plan_
        self._capture = capture
        self._progress = progress
        self._cancel = cancel
        self._done = self._total = 0
        self._kept = Kept(plan_, work_dir, words["deployment_id"])
        self._targets = walk.Folders()
        self._maker = make.Maker(plan_, words["release"], words["deployment_id"], cancel)

    def close(self) -> None:
        """Close all."""
        self._kept.close()
        self._targets.close()
        self._maker.close()

    def run(self) -> int:
        """All of the plan, in an order in which the targets are missing as briefly as can be."""
        self._total = self._plan.execute(
            f"SELECT count(*) FROM actions WHERE {planfile.IS_CHANGED} AND action IN"  # noqa: S608
            " ('add', 'replace', 'mkdir', 'remove', 'rmdir') AND (ours <> 3 OR was IS NOT NULL)"
        ).fetchone()[0]
        for row in self._rows():
            try:
                self._do(row)
            except OSError as error:
                raise from_os_error(
                    error,
                    f"install {row.path}",
                    code=Code.INSTALL_FAILED,
                    remedy=f"Look at {walk.split(row.path)[0]}, then run: agentctl retry",
                ) from error
        self._progress(self._total, self._total)
        return self._total

    def _rows(self) -> Iterator[Row]:
        """What is to be done, but for most of the hard links: those are made on the way.

        First what a folder holds that gives way to a file; then folders, so that the rest has its
        place; files and links; last what goes.
        """
        cleared = self._plan.execute(
            f"SELECT path FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            " AND action = 'replace' AND was = 'dir' AND kind <> 'dir'"
        ).fetchall()
        going = "ours = 3 AND was IS NOT NULL"
        for (path,) in cleared:
            bounds = planfile.below(path)
            yield from self._select(f"{going} AND path >= ? AND path < ?", *bounds, order="DESC")
        yield from self._select("kind = 'dir' AND action IN ('mkdir', 'replace')")
        links = self._plan.execute(
            f"SELECT {make.LINK_COLUMNS} FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            " AND action = 'add' AND how = 'link' ORDER BY path"
        )
        for path in self._maker.link_new(self._counted(links), self._targets):
            yield from self._select("path = ?", path)
        yield from self._select(
            "kind <> 'dir' AND (action = 'replace' OR action = 'add' AND how IS NOT 'link')"
        )
        yield from self._select(going, order="DESC")

    def _select(self, where: str, *values: str, order: str = "ASC") -> Iterator[Row]:
        query = (
            f"SELECT {make.COLUMNS} FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            f" AND ({where}) ORDER BY path {order}"
        )
        return map(Row._make, self._counted(self._plan.execute(query, values)))

    def _counted(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for row in rows:
            if self._done % _CHECKED == 0:
                self._cancel.check()
                self._progress(min(self._done, self._total), self._total)
            self._done += 1
            yield row

    def _do(self, row: Row) -> None:
        folder, name = walk.split(row.path)
        if row.ours == 3:
            with suppress(FileNotFoundError, NotADirectoryError):
                self._remove(row, self._targets.open(folder), folder, name)
            return
        parent = self._targets.open(folder)
        if row.action == Action.ADD:
            self._add(row, parent, name)
        elif row.action == Action.MKDIR:
            self._maker.make_folder(row, parent, name)
        else:
            self._replace(row, parent, folder, name)
        if row.context is not None:
            selinux.set_context(row.path, row.context, self._capture)

    def _add(self, row: Row, parent: int, name: str) -> None:
        try:
            self._maker.make(row, parent, name)
        except FileExistsError:
            if not _is_as_wanted(row, parent, name):  # else: this install ran before
                raise AgentError(
                    f"cannot install {row.path}: somebody put a file there meanwhile",
                    code=Code.INSTALL_FAILED,
                    remedy="Move it away, then run: agentctl retry",
                ) from None

    # what was there

    def _replace(self, row: Row, parent: int, folder: str, name: str) -> None:
        if row.kind == "dir":
            if row.was != "dir":
                self._move_away(row, parent, folder, name)
            self._maker.make_folder(row, parent, name)
        elif row.was == "dir":
            with suppress(FileNotFoundError, NotADirectoryError):
                os.rmdir(name, dir_fd=parent)
            self._add(row, parent, name)
        else:
            place = self._kept.place_for(folder)
            if self._keep(row, parent, name, place):
                self._maker.make_over(row, parent, name)

    def _keep(self, row: Row, parent: int, name: str, place: int) -> bool:
        """Keep what is there, by a second name for it; False where that and the rest are done."""
        kept = kept_name(row.path)
        try:
            os.link(name, kept, src_dir_fd=parent, dst_dir_fd=place, follow_symlinks=False)
        except FileExistsError:
            return not _is_other_file((parent, name), (place, kept))
        except FileNotFoundError:
            return True  # kept by a rename; this install ran before
        except OSError as error:
            if error.errno not in NOT_LINKABLE:
                raise
            os.rename(name, kept, src_dir_fd=parent, dst_dir_fd=place)
        return True

    def _move_away(self, row: Row, parent: int, folder: str, name: str) -> None:
        place, kept = self._kept.place_for(folder), kept_name(row.path)
        if not make.exists(place, kept):
            os.rename(name, kept, src_dir_fd=parent, dst_dir_fd=place)

    def _remove(self, row: Row, parent: int, folder: str, name: str) -> None:
        if row.kind == "dir":
            with suppress(OSError):  # it stays if there is something in it that is not ours
                os.rmdir(name, dir_fd=parent)
        elif row.was in ("file", "link"):
            self._move_away(row, parent, folder, name)
        if row.old_context is not None:
            selinux.put_back(row.path, None, self._capture)


def _is_as_wanted(row: Row, parent: int, name: str) -> bool:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if row.kind == "link":
        return stat.S_ISLNK(status.st_mode) and os.readlink(name, dir_fd=parent) == row.target
    seen = (status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode), status.st_uid)
    return stat.S_ISREG(status.st_mode) and seen == (row.size, row.mtime_ns, row.mode, row.uid)


def _is_other_file(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether the first exists and is not the second."""
    try:
        status = os.stat(one[1], dir_fd=one[0], follow_symlinks=False)
    except FileNotFoundError:
        return False
    there = os.stat(other[1], dir_fd=other[0], follow_symlinks=False)
    return (status.st_dev, status.st_ino) != (there.st_dev, there.st_ino)
