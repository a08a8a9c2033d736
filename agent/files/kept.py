"""Where the files go that an install replaces or removes, until the commit."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sqlite3
import stat
from pathlib import Path

from agent.files import acl, planfile, walk
from agent.files.volumes import Volumes

# what a file system answers that knows no hard links, has no more of them for this file, or (as
# with project quotas) does not let them pass
NOT_LINKABLE = frozenset(
    {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
)


def hidden_name(deployment_id: str) -> str:
    """The name of what a deployment puts beside its targets for a while."""
    return f".deploy-agent-{deployment_id}"


def kept_name(path: str) -> str:
    """The name under which the file of a path is kept; undo finds it again by the path alone."""
    return hashlib.blake2b(path.encode(), digest_size=16).hexdigest()


class Kept:
    """The places of a deployment: on each file system one folder that takes what is replaced.

    The work folder has one; on other file systems than its own it is a hidden folder beside the
    topmost thing that changes. A place is in the plan before it is made, so that undo finds it.
    """

    def __init__(self, plan: sqlite3.Connection, work_dir: Path, deployment_id: str) -> None:
        self._plan = plan
        self._volumes = Volumes()
        self._work_dir = Path(os.path.realpath(work_dir))  # as the mounts have it
        self._deployment_id = deployment_id
        self._open: dict[str, int] = {}  # by volume
        self._by_folder = ("", -1)  # the last one asked for

    def place_for(self, folder: str) -> int:
        """A descriptor of the place on the file system of an existing folder; made if needed."""
        if self._by_folder[0] != folder:
            volume = self._volumes.volume_of(folder)
            if volume not in self._open:
                self._open[volume] = self._make(volume, folder)
            self._by_folder = (folder, self._open[volume])
        return self._by_folder[1]

    def own_place_for(self, folder: str) -> int | None:
        """The same, but only if it is the work folder's."""
        same = self._volumes.volume_of(folder) == self._volumes.volume_of(str(self._work_dir))
        return self.place_for(folder) if same else None

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _make(self, volume: str, folder: str) -> int:
        known = self._plan.execute("SELECT path FROM places WHERE volume = ?", (volume,)).fetchone()
        if known:
            path = Path(known[0])
        elif self._volumes.volume_of(str(self._work_dir)) == volume:
            path = self._work_dir / "kept"
        else:
            path = Path(self._topmost(volume, folder), hidden_name(self._deployment_id))
        if not known:
            with planfile.transaction(self._plan):
                if path.parent != self._work_dir:
                    save_folder(self._plan, str(path.parent))
                self._plan.execute("INSERT INTO places VALUES (?, ?)", (volume, str(path)))
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(place).st_uid != os.geteuid():
            os.close(place)
            raise PermissionError(errno.EPERM, "somebody else made this folder", str(path))
        return place

    def _topmost(self, volume: str, folder: str) -> str:
        """The highest folder above `folder` in which something changes, and which stays."""
        chosen = above = folder
        while above != "/":
            above = walk.split(above)[0]
            if self._volumes.volume_of(above) != volume:
                break
            goes, changes = self._plan.execute(
                "SELECT EXISTS (SELECT 1 FROM actions WHERE path = ? AND action = 'rmdir'),"
                " EXISTS (SELECT 1 FROM folders WHERE path = ?)",
                (chosen, above),
            ).fetchone()
            if goes or changes:
                chosen = above
        return chosen


def save_folder(plan: sqlite3.Connection, folder: str, *, is_own: bool = False) -> None:
    """Save a folder as it is, to be put back by undo; the first save counts.

    is_own: its permissions change, too, or it is removed.
    """
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        return  # it becomes one
    acls = acl.read_acls(folder) if is_own else (None, None)
    plan.execute(
        "INSERT OR IGNORE INTO folders VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            folder,
            status.st_mode & 0o7777,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            is_own,
            *acls,
        ),
    )
