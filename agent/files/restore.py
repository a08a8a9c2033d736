"""Take an install back, exactly: from the plan and what was kept, whatever moment it ended at.

What an action was about to do is in the plan before it is done, and what was there has a second
name before it is replaced. So each path is put back by looking at it, and doing that twice, or
after a crash in it, does no harm.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from agent.files import acl, apply, copying, heal, make, planfile, selinux, walk
from agent.files.choose import Action
from agent.files.kept import Kept, kept_name
from agent.files.owners import Capture
from agent.model.errors import AgentError, Code
from agent.system.cancel import Cancel

_CHECKED = 500  # paths between two looks at cancel
_LISTED = 100  # failures; undo goes on after each
_MADE = "action IN ('add', 'mkdir')"
_END = "\U0010ffff"  # sorts behind every path


def undo(work_dir: Path, *, capture: Capture, cancel: Cancel) -> None:
    """Put back what the install of work_dir/plan.db changed, and what hooks took of ours.

    Nothing that is not ours is removed: a folder that was made stays if others use it. May run
    again; does nothing where there is no plan. Blocks. Raises AgentError (INSTALL_FAILED) with
    every path that could not be put back, after the others were.
    """
    path = work_dir / planfile.NAME
    if not path.exists():
        return
    with planfile.opened(path, cancel) as plan:
        words = planfile.load_words(plan)
        if "undone" in words:
            return
        failures = _undo(plan, work_dir, words, capture, cancel)
        if failures:
            raise AgentError(
                f"cannot put back {len(failures)} of the files",
                code=Code.INSTALL_FAILED,
                details=tuple(failures[:_LISTED]),
                remedy="Put these back by hand, then deploy a good revision: agentctl deploy",
            )
        if "started" in words:
            _note(plan, undone="yes", undoing="", started="")


def _undo(
    plan: sqlite3.Connection,
    work_dir: Path,
    words: dict[str, str],
    capture: Capture,
    cancel: Cancel,
) -> list[str]:
    """A line for each failure."""
    if "started" not in words:
        return heal.heal(plan, words, cancel)
    _note(plan, undoing="yes")
    with closing(_Undo(plan, work_dir, words, capture, cancel)) as work:
        failures = work.run()
    if not failures:
        _clear_places(plan)
    failures += heal.heal(plan, words, cancel)
    failures += _put_folders_back(plan)
    apply.sync(plan, work_dir)
    return failures


def _note(plan: sqlite3.Connection, **words: str) -> None:
    """Save words, if there is room: a full disk is why many an install is undone."""
    try:
        with planfile.transaction(plan):
            planfile.save_words(plan, **words)
    except sqlite3.Error as error:
        if not planfile.is_disk_full(error):
            raise


def forget(work_dir: Path) -> None:
    """Remove the plan and what was kept for an undo; blocks. Raises OSError.

    For a deployment that has ended. After an undo that failed, all is left for a person to see.
    """
    path = work_dir / planfile.NAME
    if not path.exists():
        return
    with planfile.opened(path) as plan:
        if "undoing" in planfile.load_words(plan):
            return
        for place in _own_places(plan):
            shutil.rmtree(place)
    path.unlink()


class _Row(NamedTuple):
    """One path of the plan."""

    path: str
    action: str
    kind: str
    was: str | None
    ours: int


_COLUMNS = "path, action, kind, was, ours"
_CONTEXTS = """
SELECT path, old_context FROM actions
WHERE ours IN (0, 2) AND action IN ('add', 'replace', 'mkdir') AND context IS NOT NULL
    OR ours IN (2, 3) AND old_context IS NOT NULL
"""


class _Undo:
    """One undo on its way: what is open, and what has failed."""

    def __init__(
        self,
        plan: sqlite3.Connection,
        work_dir: Path,
        words: dict[str, str],
        capture: Capture,
        cancel: Cancel,
    ) -> None:
        self._plan = plan
        self._capture = capture
        self._cancel = cancel
        self._partial = make.partial_name(words["deployment_id"])
        self._kept = Kept(plan, work_dir, words["deployment_id"])
        self._folders = walk.Folders()
        self._cleared = ""  # the last folder in which no partial file is left
        self._places = []
        for (path,) in plan.execute("SELECT path FROM places"):
            with suppress(FileNotFoundError):
                self._places.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self.failures: list[str] = []

    def close(self) -> None:
        """Close all."""
        self._kept.close()
        self._folders.close()
        while self._places:
            os.close(self._places.pop())

    def run(self) -> list[str]:
        """Take away what was made, then put back what was there; a line for each failure."""
        for number, row in enumerate(self._made(self._move_made_folders_away())):
            self._each(number, row, self._take_away)
        query = (
            f"SELECT {_COLUMNS} FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            " AND was IS NOT NULL AND (action = 'replace' OR ours = 3) ORDER BY path"
        )
        for number, row in enumerate(map(_Row._make, self._plan.execute(query))):
            self._each(number, row, self._put_back)
        for path, old in self._plan.execute(_CONTEXTS):
            try:
                selinux.put_back(path, old, self._capture)
            except AgentError as error:
                self.failures.append(f"{path}: {error.message}")
        return self.failures

    def _each(self, number: int, row: _Row, work: Callable[[_Row, str, str], None]) -> None:
        if number % _CHECKED == 0:
            self._cancel.check()
        try:
            work(row, *walk.split(row.path))
        except OSError as error:
            self.failures.append(f"{row.path}: {error.strerror}")

    def _open(self, folder: str, *, make_it: bool = False) -> int:
        parent = self._folders.ensure(folder) if make_it else self._folders.open(folder)
        if folder != self._cleared:
            self._cleared = folder
            with suppress(FileNotFoundError):
                os.unlink(self._partial, dir_fd=parent)
        return parent

    # what was made

    def _move_made_folders_away(self) -> list[str]:
        """Rename folders that were made and hold nothing but ours, instead of emptying them.

        What is renamed is removed with the rest of what was kept, when there is time for it.
        """
        gone: list[str] = []
        skipped = "\0"
        for (path,) in self._plan.execute(
            f"SELECT path FROM actions WHERE {planfile.IS_CHANGED}"  # noqa: S608
            " AND action = 'mkdir' ORDER BY path"
        ).fetchall():
            if path.startswith(skipped):
                continue
            skipped = f"{path}/"
            folder, name = walk.split(path)
            with suppress(OSError, sqlite3.Error):  # then it is emptied path by path
                place = self._kept.own_place_for(folder)
                if place is None or walk.find_stranger(
                    self._plan, path, where=_MADE, ignore=self._partial
                ):
                    continue
                parent = self._folders.open(folder)
                os.rename(name, f"undone-{kept_name(path)}", src_dir_fd=parent, dst_dir_fd=place)
                gone.append(path)
        return gone

    def _made(self, gone: list[str]) -> Iterator[_Row]:
        """Rows of what was made, or took another's place; last first; nothing below `gone`."""
        query = (
            f"SELECT {_COLUMNS} FROM actions WHERE path >= ? AND path < ? AND ({_MADE}"  # noqa: S608
            " OR action = 'replace' AND (was = 'dir') <> (kind = 'dir')) ORDER BY path DESC"
        )
        beyond = _END
        for folder in reversed(gone):
            first, last = planfile.below(folder)
            yield from map(_Row._make, self._plan.execute(query, (last, beyond)))
            beyond = first
        yield from map(_Row._make, self._plan.execute(query, ("", beyond)))

    def _take_away(self, row: _Row, folder: str, name: str) -> None:
        """Remove what the install made at a path where nothing, or something else, was."""
        with suppress(FileNotFoundError, NotADirectoryError):
            parent = self._open(folder)
            if row.kind != "dir":
                if row.was != "dir" or not _is_folder(parent, name):
                    os.unlink(name, dir_fd=parent)
            elif row.action == Action.MKDIR:
                with suppress(OSError):  # others use it: it stays
                    os.rmdir(name, dir_fd=parent)
            elif _is_folder(parent, name):
                os.rmdir(name, dir_fd=parent)

    # what was there

    def _put_back(self, row: _Row, folder: str, name: str) -> None:
        if row.was == "dir":
            if row.kind != "dir" or row.ours == 3:
                self._folders.ensure(row.path)  # its permissions follow: see folders
            return
        kept = kept_name(row.path)
        parent = self._open(folder, make_it=True)  # a hook may have taken it
        for place in self._places:
            try:
                os.rename(kept, name, src_dir_fd=place, dst_dir_fd=parent)
                break
            except OSError as error:  # it is kept in another place, or was not replaced yet
                if error.errno not in (errno.ENOENT, errno.EXDEV):
                    raise


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _own_places(plan: sqlite3.Connection) -> Iterator[str]:
    """The places that are there; not a folder that somebody else made under such a name."""
    for (path,) in plan.execute("SELECT path FROM places").fetchall():
        with suppress(FileNotFoundError):
            if os.lstat(path).st_uid == os.geteuid():
                yield path


def _clear_places(plan: sqlite3.Connection) -> None:
    """Remove the places, now that all is back, but for folders that were moved away: see forget."""
    for path in _own_places(plan):
        with suppress(OSError):  # it holds such a folder
            for name in os.listdir(path):
                with suppress(IsADirectoryError):
                    # renaming it back did nothing if it was only linked here, and not replaced yet
                    os.unlink(os.path.join(path, name))
            os.rmdir(path)


def _put_folders_back(plan: sqlite3.Connection) -> list[str]:
    """Give folders that existed their times and permissions again; a line for each failure."""
    failures = []
    query = (
        "SELECT path, mode, uid, gid, mtime_ns, is_own, access_acl, default_acl FROM folders"
        " ORDER BY path DESC"
    )
    with closing(walk.Folders()) as folders:
        for path, mode, uid, gid, mtime_ns, is_own, *acls in plan.execute(query):
            try:
                descriptor = os.open(
                    ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folders.open(path)
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
                continue
            try:
                if is_own:
                    copying.set_owner_and_mode(descriptor, mode, uid, gid)
                    acl.put_acls_back(descriptor, *acls)
                atime_ns = os.fstat(descriptor).st_atime_ns
                os.utime(descriptor, ns=(atime_ns, mtime_ns))
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
            finally:
                os.close(descriptor)
    return failures
