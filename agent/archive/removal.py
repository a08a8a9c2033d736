"""Removing a tree by directory descriptors: no link is followed, nothing outside is touched."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from pathlib import Path

from agent.model.errors import AgentError, Code, from_os_error
from agent.system.cancel import Cancel

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 32  # descriptors open at once
_CHECK_EVERY = 256
_ROUNDS = 5  # for a tree that something still writes into


def remove_tree(tree: Path, cancel: Cancel) -> None:
    """Remove `tree` and all below it; fine if it is not there; a link itself is removed.

    Raises AgentError (INSTALL_FAILED) where something cannot be removed or another file system
    is mounted in it; Interrupted, after which it may be called again.
    """
    try:
        _remove(tree, cancel)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os_error(error, f"remove {tree}", code=Code.INSTALL_FAILED) from error


def _remove(tree: Path, cancel: Cancel) -> None:
    found = os.lstat(tree)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(tree)
        return
    top = os.open(tree, _OPEN_FOLDER)
    try:
        removal = _Removal(top, cancel)
        for _ in range(_ROUNDS):
            while removal.empty(top, depth=0):
                pass
            with contextlib.suppress(OSError):
                os.rmdir(tree)
                return
        os.rmdir(tree)
    finally:
        os.close(top)


class _Removal:
    """One removal. top: a descriptor of the tree's root."""

    def __init__(self, top: int, cancel: Cancel) -> None:
        self._top = top
        self._device = os.fstat(top).st_dev
        self._cancel = cancel
        self._numbers = itertools.count()
        self._removed = 0

    def empty(self, folder: int, depth: int) -> bool:
        """Remove what is in a folder; whether something was moved up to the root instead."""
        moved = False
        with os.scandir(folder) as entries:
            for entry in entries:
                self._removed += 1
                if not self._removed % _CHECK_EVERY:
                    self._cancel.check()
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        moved |= self._remove_folder(entry.name, folder, depth)
                    else:
                        os.unlink(entry.name, dir_fd=folder)
        return moved

    def _remove_folder(self, name: str, above: int, depth: int) -> bool:
        if depth == _DEPTH:  # too deep for one descriptor each
            os.rename(
                name,
                f".removed-{os.getpid()}-{next(self._numbers)}",
                src_dir_fd=above,
                dst_dir_fd=self._top,
            )
            return True
        folder = os.open(name, _OPEN_FOLDER, dir_fd=above)
        try:
            if os.fstat(folder).st_dev != self._device:
                raise AgentError(
                    f"cannot remove the folder {name}: another file system is mounted there",
                    code=Code.INSTALL_FAILED,
                    remedy="Unmount it, then try again.",
                )
            moved = self.empty(folder, depth + 1)
        finally:
            os.close(folder)
        with contextlib.suppress(OSError):  # not empty: the next round comes back to it
            os.rmdir(name, dir_fd=above)
        return moved
