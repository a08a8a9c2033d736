"""Linking files of an old release into a new one; as a program, it does so for the agent.

Run as a program it is a process of its own (see link_queue.py), which stays small by importing
next to nothing: no module of ours, and not even `site`.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys

TYPE_CHECKING = False  # to import typing takes longer than all of the above
if TYPE_CHECKING:
    from typing import Any, BinaryIO

Wish = tuple[str, str, str, int, int, int]
"""A file to link: its folder in both trees, its name in the old one and in the new one, and the
mode, size and mtime_ns that it must have."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LENGTH_BYTES = 4


class Linker:
    """Links files of the tree `old` into the tree `new`, where their folders exist.

    Follows no link, and keeps one folder of each open. Not for two threads at once.
    """

    def __init__(self, old: str, new: str) -> None:
        self._owner = (os.geteuid(), os.getegid())
        self._roots = (os.open(old, _OPEN_FOLDER), os.open(new, _OPEN_FOLDER))
        self._folder: str | None = None
        self._open: list[int] = []

    def close(self) -> None:
        """Close every descriptor."""
        self._close_folders()
        for root in self._roots:
            os.close(root)

    def link(self, wishes: list[Wish]) -> list[int]:
        """Make links; the numbers of the wishes for which there is none.

        A service may have written into a file or changed its mode; the file system may not allow
        (more) links.
        """
        failed = []
        for number, (folder, name, new_name, mode, size, mtime_ns) in enumerate(wishes):
            try:
                if folder != self._folder:
                    self._enter(folder)
                old, new = self._open
                found = os.stat(name, dir_fd=old, follow_symlinks=False)
                if (
                    found.st_mode == stat.S_IFREG | mode
                    and found.st_size == size
                    and found.st_mtime_ns == mtime_ns
                    and (found.st_uid, found.st_gid) == self._owner
                ):
                    os.link(name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
                    continue
            except OSError:
                pass
            failed.append(number)
        return failed

    def _enter(self, folder: str) -> None:
        self._close_folders()
        for root in self._roots:
            self._open.append(os.dup(root))
            for part in folder.split("/") if folder else ():
                above = self._open[-1]
                self._open[-1] = os.open(part, _OPEN_FOLDER, dir_fd=above)
                os.close(above)
        self._folder = folder

    def _close_folders(self) -> None:
        self._folder = None
        while self._open:
            os.close(self._open.pop())


def say(content: list[Wish] | list[int], to: BinaryIO) -> None:
    """Write a message for the other end, which is the same interpreter. Raises OSError."""
    message = marshal.dumps(content)
    to.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
    to.flush()


def hear(end: BinaryIO) -> Any:
    """The next message; None when the other end is closed."""
    length = int.from_bytes(end.read(_LENGTH_BYTES), "big")
    message = end.read(length)
    is_whole = length and len(message) == length
    return marshal.loads(message) if is_whole else None  # noqa: S302 - from ourselves


def main(old: str, new: str, agent: str) -> None:
    """Answer each list of wishes with the numbers of those that could not be linked."""
    linker = Linker(old, new)
    # without its agent it must not go on: a new one removes what it made
    while (wishes := hear(sys.stdin.buffer)) is not None and os.getppid() == int(agent):
        say(linker.link(wishes), sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
