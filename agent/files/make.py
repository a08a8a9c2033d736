"""Make one file, link or folder of a plan, at its target or ready beside it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from agent.files import acl, copying, walk
from agent.files.kept import NOT_LINKABLE, hidden_name
from agent.system.cancel import Cancel

COLUMNS = (
    "path, action, kind, source, how, mode, uid, gid, size, mtime_ns, digest, target, acl,"
    " context, was, ours, old_context"
)
LINK_COLUMNS = "path, source, mode | 32768, gid, size, mtime_ns"  # 32768: S_IFREG
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Row(NamedTuple):
    """One path of the plan: the COLUMNS of its actions."""

    path: str
    action: str
    kind: str
    source: str
    how: str | None
    mode: int | None
    uid: int | None
    gid: int | None
    size: int
    mtime_ns: int
    digest: bytes
    target: str
    acl: str | None
    context: str | None
    was: str | None
    ours: int
    old_context: str | None


def partial_name(deployment_id: str) -> str:
    """The name of a file that is made ready beside its target."""
    return f"{hidden_name(deployment_id)}.new"


class Maker:
    """Makes what a plan wants, out of the release. All methods block and raise OSError."""

    def __init__(
        self, plan: sqlite3.Connection, release: str, deployment_id: str, cancel: Cancel
    ) -> None:
        self._partial = partial_name(deployment_id)
        self._cancel = cancel
        self._release = walk.Folders(release)
        self._euid = os.geteuid()
        self._acls = {
            (row[0], row[1]): (row[2], row[3]) for row in plan.execute("SELECT * FROM acls")
        }
        self._folder = ""  # of the last link, and whether files inherit an ACL in it
        self._inherits = False

    def close(self) -> None:
        """Close what is open."""
        self._release.close()

    def link_new(self, rows: Iterable[tuple[Any, ...]], targets: walk.Folders) -> Iterator[str]:
        """Make new hard links of LINK_COLUMNS; give back the paths where more is to be done.

        Only a shorter way for the bulk of a plan: make() does, or explains, what is given back.
        """
        target_folder = source_folder = "\0"  # no path has it
        parent = where = -1
        inherits = False
        for path, source, mode, gid, size, mtime_ns in rows:
            cut, source_cut = path.rfind("/"), source.rfind("/") + 1
            try:
                if path[:cut] != target_folder:
                    parent, target_folder = targets.open(path[:cut]), path[:cut]
                    inherits = self._is_inheriting(path)
                if source[:source_cut] != source_folder:
                    where = self._release.open(source[:source_cut])
                    source_folder = source[:source_cut]
                name = source[source_cut:]
                status = os.stat(name, dir_fd=where, follow_symlinks=False)
                if (
                    status.st_mode == mode
                    and status.st_mtime_ns == mtime_ns
                    and status.st_size == size
                    and status.st_uid == self._euid
                    and status.st_gid == gid
                    and not inherits
                ):
                    _link((where, name), (parent, path[cut + 1 :]))
                    continue
            except OSError:
                target_folder = source_folder = "\0"
            yield path
            target_folder = source_folder = "\0"  # they may be closed by now

    def make(self, row: Row, parent: int, name: str) -> None:
        """Make a file or link where nothing is. Raises FileExistsError."""
        if row.kind == "link":
            os.symlink(row.target, name, dir_fd=parent)
        elif not self.link(row, parent, name):
            self._copy(row, parent)
            if exists(parent, name):
                self._clear(parent)
                raise FileExistsError
            os.rename(self._partial, name, src_dir_fd=parent, dst_dir_fd=parent)

    def make_over(self, row: Row, parent: int, name: str) -> None:
        """Make a file or link beside what is there, and rename it over that."""
        if row.kind == "link":
            self._clear(parent)
            os.symlink(row.target, self._partial, dir_fd=parent)
        elif not self.link(row, parent, self._partial):
            self._copy(row, parent)
        os.rename(self._partial, name, src_dir_fd=parent, dst_dir_fd=parent)
        self._clear(parent)  # a rename does nothing if both are the same file

    def make_folder(self, row: Row, parent: int, name: str) -> None:
        """Make a folder, if it is not there, and give it what is wanted."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
        try:
            mode = row.mode
            if mode is None and row.was != "dir":  # whatever the umask says
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode) | 0o755
            copying.set_owner_and_mode(descriptor, mode, row.uid, row.gid)
            if row.acl:
                acl.set_acls(descriptor, *self._acls[row.acl, row.kind])
        finally:
            os.close(descriptor)

    def _copy(self, row: Row, parent: int) -> None:
        assert row.mode is not None
        assert row.uid is not None
        assert row.gid is not None
        found = self._acls[row.acl, row.kind][0] if row.acl else None
        wanted = copying.Wanted(
            row.path, row.mode, row.uid, row.gid, row.size, row.mtime_ns, row.digest, found
        )
        folder, name = os.path.split(row.source)
        source = (self._release.open(folder), name)
        copying.copy_file(source, (parent, self._partial), wanted, self._cancel)

    def link(self, row: Row, parent: int, name: str) -> bool:
        """Make a hard link of the release's file; False where only a copy will do.

        A file is as wanted, or is made so, and nobody else may have changed it (see copying).
        """
        if row.how != "link" or self._is_inheriting(row.path):
            return False
        folder, _, source = row.source.rpartition("/")
        where = self._release.open(folder)
        status = os.stat(source, dir_fd=where, follow_symlinks=False)
        if (
            status.st_mode != row.mode | stat.S_IFREG  # type: ignore[operator] # a file has one
            or status.st_mtime_ns != row.mtime_ns
            or status.st_size != row.size
            or status.st_uid != self._euid
            or status.st_gid != row.gid
        ) and not self._adjust(row, status, where, source):
            return False
        try:
            _link((where, source), (parent, name))
        except FileExistsError:
            if name != self._partial:
                raise
            self._clear(parent)  # an interrupted install left it
            return self.link(row, parent, name)
        except OSError as error:
            if error.errno in NOT_LINKABLE:
                return False
            raise
        return True

    def _adjust(self, row: Row, status: os.stat_result, where: int, source: str) -> bool:
        """Give a file of the release the mode and group that are wanted, if it may be linked."""
        if not copying.is_trusted(status, row.size, row.mtime_ns) or status.st_nlink > 1:
            return False  # somebody else's, or another release's, too
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
        try:
            copying.set_owner_and_mode(descriptor, row.mode, row.uid, row.gid)
        finally:
            os.close(descriptor)
        return True

    def _is_inheriting(self, path: str) -> bool:
        """Whether new files in the folder get an ACL from it, which a hard link would not."""
        folder = path[: path.rfind("/")]
        if folder != self._folder:
            self._folder, self._inherits = folder, acl.read_acls(folder or "/")[1] is not None
        return self._inherits

    def _clear(self, parent: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=parent)


def _link(source: tuple[int, str], target: tuple[int, str]) -> None:
    """Make a hard link. Each is a folder and a name in it."""
    os.link(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0], follow_symlinks=False)


def exists(folder: int, name: str) -> bool:
    """Whether a folder has a name."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
