"""Bring back what hooks took of the current revision's files: an undo has to leave it whole.

A hook such as `rm -rf /srv/app` in BeforeInstall, or a `chown -R` in AfterInstall, changes files
that the install itself does not touch. They are compared with what was committed, and restored
from a release that has them.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from contextlib import closing, suppress
from typing import NamedTuple

from agent.files import copying, walk
from agent.files.copying import Wanted
from agent.files.make import partial_name
from agent.model.errors import AgentError
from agent.system.cancel import Cancel

_CHECKED = 500  # paths between two looks at cancel
_FOLDERS = """
SELECT s.path, s.mode, s.uid, s.gid FROM seen s JOIN actions a ON a.path = s.path
WHERE a.intact AND coalesce(a.old_kind, a.kind) = 'dir' AND s.mode IS NOT NULL
"""
_QUERY = """
SELECT path, coalesce(old_kind, kind), coalesce(old_mode, mode), coalesce(old_uid, uid),
    coalesce(old_gid, gid), coalesce(old_size, size), coalesce(old_mtime_ns, mtime_ns),
    coalesce(old_digest, digest), coalesce(old_source, source), source, ours, acl
FROM planned WHERE intact ORDER BY path
"""


class _Row(NamedTuple):
    """A path as it was committed, and as it was when the plan was made.

    old_source: in the current release; source: in the new one, the same content if ours is 1.
    """

    path: str
    kind: str
    mode: int | None
    uid: int | None
    gid: int | None
    size: int
    mtime_ns: int
    digest: bytes
    old_source: str | None
    source: str | None
    ours: int
    acl: str | None


def heal(plan: sqlite3.Connection, words: dict[str, str], cancel: Cancel) -> list[str]:
    """Restore every path that is not as it was committed any more; a line for each failure."""
    failures = []
    with closing(_Healer(plan, words, cancel)) as healer:
        for number, row in enumerate(plan.execute(_QUERY)):
            if number % _CHECKED == 0:
                cancel.check()
            try:
                found = os.lstat(row[0])
            except (FileNotFoundError, NotADirectoryError):
                found = None
            if found is not None and (
                found.st_mtime_ns == row[6]
                and found.st_size == row[5]
                and found.st_mode & 0o7777 == row[2]
                and found.st_uid == row[3]
                and found.st_gid == row[4]
                and row[1] == "file"
            ):
                continue
            try:
                healer.restore(_Row._make(row), found)
            except OSError as error:
                failures.append(f"{row[0]}: {error.strerror}")
            except AgentError as error:
                failures.append(f"{row[0]}: {error.message}")
        for path, mode, uid, gid in plan.execute(_FOLDERS):
            try:
                healer.set_permissions(path, mode, uid, gid)
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
    return failures


class _Healer:
    """Restores one path after the other, from the current release or the new one."""

    def __init__(self, plan: sqlite3.Connection, words: dict[str, str], cancel: Cancel) -> None:
        self._cancel = cancel
        self._partial = partial_name(words["deployment_id"])
        self._folders = walk.Folders()
        self._acls = dict(plan.execute("SELECT acl, access_acl FROM acls WHERE kind = 'file'"))
        self._current = words.get("current", "")
        self._release = words["release"]

    def close(self) -> None:
        """Close all."""
        self._folders.close()

    def restore(self, row: _Row, found: os.stat_result | None) -> None:
        """Make a path as it was committed. Raises OSError, AgentError."""
        mode = 0 if found is None else found.st_mode
        if row.kind == "dir":
            if not stat.S_ISDIR(mode):
                self._folders.ensure(row.path)
        elif row.kind == "link":
            if not stat.S_ISLNK(mode) or _link_digest(row.path) != row.digest:
                self._link(row)
        elif (
            found is not None
            and stat.S_ISREG(mode)
            and (found.st_size, found.st_mtime_ns) == (row.size, row.mtime_ns)
        ):
            self.set_permissions(row.path, row.mode, row.uid, row.gid)
        else:
            self._copy(row)

    def set_permissions(
        self, path: str, mode: int | None, uid: int | None, gid: int | None
    ) -> None:
        """Give a file or folder what it had, where it has not. Raises OSError."""
        parent, name = self._open_parent(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (mode, uid, gid):
                copying.set_owner_and_mode(descriptor, mode, uid, gid)
        finally:
            os.close(descriptor)

    def _link(self, row: _Row) -> None:
        parent, name = self._open_parent(row.path)
        for path in self._sources(row):
            with suppress(OSError):
                target = os.readlink(path)
                if hashlib.sha256(os.fsencode(target)).digest() == row.digest:
                    self._clear(parent)
                    os.symlink(target, self._partial, dir_fd=parent)
                    os.rename(self._partial, name, src_dir_fd=parent, dst_dir_fd=parent)
                    return
        raise FileNotFoundError(0, "it is gone, and no release on this host has it")

    def _copy(self, row: _Row) -> None:
        assert row.mode is not None
        assert row.uid is not None
        assert row.gid is not None
        access = self._acls.get(row.acl) if row.ours == 1 else None
        wanted = Wanted(
            row.path, row.mode, row.uid, row.gid, row.size, row.mtime_ns, row.digest, access
        )
        parent, name = self._open_parent(row.path)
        for path in self._sources(row):
            try:
                source = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                where = (source, os.path.basename(path))
                copying.copy_file(where, (parent, self._partial), wanted, self._cancel)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except AgentError:  # this release has another content there
                self._clear(parent)
                continue
            finally:
                os.close(source)
            os.rename(self._partial, name, src_dir_fd=parent, dst_dir_fd=parent)
            return
        raise FileNotFoundError(0, "it is gone or changed, and no release on this host has it")

    def _sources(self, row: _Row) -> list[str]:
        found = []
        if self._current and row.old_source is not None:
            found.append(os.path.join(self._current, row.old_source))
        if row.ours == 1 and row.source is not None:
            found.append(os.path.join(self._release, row.source))
        return found

    def _open_parent(self, path: str) -> tuple[int, str]:
        folder, name = walk.split(path)
        return self._folders.ensure(folder), name

    def _clear(self, parent: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=parent)


def _link_digest(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(os.readlink(path))).digest()
