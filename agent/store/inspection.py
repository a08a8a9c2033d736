"""A look at the state that leaves no trace, on the file or with the agent that uses it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from agent.model.errors import Code, from_os_error
from agent.store import state
from agent.store.state import State

_MEMORY = "/dev/shm"  # noqa: S108 - the disk may be full; mkdtemp's names cannot be guessed


@contextmanager
def open_copy(path: Path, *, in_use: bool) -> Iterator[State]:
    """The state as it is now, in a copy. in_use: an agent may be writing to it.

    Raises AgentError: STATE_DAMAGED, STATE_TOO_NEW, NOT_PERMITTED, DISK_FULL.
    """
    try:
        folder_of_copy = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="deploy-agent-", dir=folder_of_copy) as folder:
            copy = Path(folder, path.name)
            if in_use:
                _back_up(path, copy)
            else:
                _copy(path, copy)
            with closing(State(copy, original=path)) as found:
                yield found
    except OSError as error:
        raise from_os_error(error, f"copy {path}", code=Code.NOT_PERMITTED) from error


def installed_paths(found: State, application: str) -> list[str]:
    """The files that its committed revision put on this host. Raises AgentError."""
    rows = found.rows(
        "SELECT path FROM installed WHERE application = ? AND kind <> 'dir' ORDER BY path",
        (application,),
    )
    return [row["path"] for row in rows]


def _back_up(path: Path, copy: Path) -> None:
    """SQLite's own way, beside a writer: https://www.sqlite.org/backup.html."""
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise state.translate(error, path) from error


def _copy(path: Path, copy: Path) -> None:
    """The file, and the log of what a killed agent had not yet written into it."""
    shutil.copyfile(path, copy)
    log = f"{path}-wal"
    if os.path.exists(log):
        shutil.copyfile(log, f"{copy}-wal")
