"""A look at the committed files while SQLite still works out what the plan wants.

That one statement takes as long as a look at every file, and leaves the interpreter to others. The
comparison then need not look again at what is as it was committed, which is nearly everything.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from agent.files import linked, walk
from agent.files.parts import Part
from agent.system.cancel import Cancel

_CACHE_KIB = 128  # it is read once, in order
CHANGED_LIMIT = 5000  # beyond it, little is saved
_QUERY = (
    "SELECT path, mtime_ns, size, mode | 32768, uid, gid FROM committed.installed NOT INDEXED"
    " WHERE application = ? AND kind = 'file' ORDER BY path"
)  # 32768: S_IFREG


class Committed(Protocol):
    """The files that committed revisions own on this host."""

    def attach(self, connection: sqlite3.Connection) -> None:
        """Make them readable as committed.installed on a connection opened with uri=True."""


LinkedParts = tuple[Path, Sequence[Part]] | None
"""The tree of a release that has just been unpacked, and what the appspec brings of it."""


class EarlyLook(threading.Thread):
    """Looks at every file that is committed for an application; by folder, where that will do.

    seen:    the folders of these files, as they were before the first look into each.
    changed: files that are not as committed, or could not be looked at; by folder, also those that
        are not committed yet.
    is_whole: whether it came to its end; else nothing of it counts.
    """

    def __init__(
        self, committed: Committed, application: str, cancel: Cancel, linked_parts: LinkedParts
    ) -> None:
        super().__init__(name="early-look")
        self.seen: dict[str, walk.Looked] = {}
        self.changed: list[str] = []
        self.is_whole = False
        self._committed = committed
        self._application = application
        self._cancel = cancel
        self._linked_parts = linked_parts
        self._ended = threading.Event()

    def run(self) -> None:
        """Look; an error will be met again by the comparison, which explains it."""
        if self._linked_parts is not None and self._look_by_folder(*self._linked_parts):
            return
        try:
            with closing(sqlite3.connect(":memory:", uri=True)) as database:
                self._committed.attach(database)
                database.execute(f"PRAGMA committed.cache_size = -{_CACHE_KIB}")
                with closing(walk.Folders()) as folders:
                    self.is_whole = self._look(database, folders)
        except (OSError, sqlite3.Error):
            pass

    def end(self) -> None:
        """Stop it, if it is not at its end."""
        self._ended.set()
        self.join()

    def _is_over(self) -> bool:
        return self._ended.is_set() or self._cancel.is_set()

    def _look_by_folder(self, tree: Path, parts: Sequence[Part]) -> bool:
        look = linked.LinkedLook(tree, self._is_over)
        with suppress(OSError):
            self.is_whole = look.look(parts)
        if self.is_whole:
            self.seen, self.changed = look.seen, look.changed
        return self.is_whole

    def _look(self, database: sqlite3.Connection, folders: walk.Folders) -> bool:
        folder, descriptor = "\0", None  # no path has it
        rows = database.execute(_QUERY, (self._application,))
        for path, mtime_ns, size, mode, uid, gid in rows:
            above, _, name = path.rpartition("/")
            if above != folder:
                folder = above
                if self._is_over():
                    return False
                self.seen[folder or "/"] = walk.look_at(folder or "/")
                descriptor = _open(folders, folder)
            if descriptor is not None:
                try:  # no function of its own: this is where the time of a plan goes
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if (
                        found.st_mtime_ns == mtime_ns
                        and found.st_size == size
                        and found.st_mode == mode
                        and found.st_uid == uid
                        and found.st_gid == gid
                    ):
                        continue
                except OSError:
                    pass
            self.changed.append(path)
            if len(self.changed) > CHANGED_LIMIT:
                return False
        return True


@contextmanager
def looking(
    committed: Committed, application: str, cancel: Cancel, linked_parts: LinkedParts = None
) -> Iterator[EarlyLook]:
    """An early look, which is over when the block is left.

    linked_parts: where the appspec sets no permissions; else what is the release's own file may not
    be as it is wanted (see linked).
    """
    look = EarlyLook(committed, application, cancel, linked_parts)
    look.start()
    try:
        yield look
    finally:
        look.end()


def _open(folders: walk.Folders, folder: str) -> int | None:
    try:
        return folders.open(folder)
    except OSError:
        return None
