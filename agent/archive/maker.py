"""Making small files in a tree, new or linked; as a program, it does so for the agent.

Run as a program it is a process of its own (see make_queue.py), which stays small by importing
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

Wish = tuple[str, str, int, int, int, bytes | None]
"""A file to make: its folder and its name, mode, size, mtime_ns, and its content. None: the file of
the old tree is linked, if it has that mode, size and mtime_ns."""

FOLDER_MODE = 0o755
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LENGTH_BYTES = 4


class Maker:
    """Makes files in a tree, and the folders for them, and links those of an old tree.

    Follows no link, and keeps one folder of each open. Not for two threads at once.
    """

    def __init__(self, tree: str, old: str = "", *, exact: bool = False) -> None:
        """old: "" where there is none. exact: see tree.Tree. Raises OSError."""
        self._owner = (os.geteuid(), os.getegid())
        self._exact = exact
        self._new = _Folders(tree, makes=True, exact=exact)
        self._old = _Folders(old) if old else None

    def close(self) -> None:
        """Close every descriptor."""
        self._new.close()
        if self._old:
            self._old.close()

    def make(self, wishes: list[Wish]) -> list[int]:
        """Make files; the numbers of those that are not made."""
        failed = []
        last = "\0"  # no folder: both descriptors are of the folder of the link before
        old = new = -1
        for number, (folder, name, mode, size, mtime_ns, content) in enumerate(wishes):
            try:
                if content is not None:
                    last = "\0"
                    self._create(self._new.open(folder), name, mode, mtime_ns, content)
                    continue
                if folder != last:
                    old, new = self._pair(folder)
                    last = folder
                if not self._link((old, new), name, name, (mode, size, mtime_ns)):
                    failed.append(number)
            except OSError:
                last = "\0"
                failed.append(number)
        return failed

    def link(self, folder: str, name: str, new_name: str, wanted: tuple[int, int, int]) -> bool:
        """Link the old tree's file, if it still is as wanted: mode, size, mtime_ns.

        A service may have written into it, or changed its mode. Raises OSError: the file system
        may not allow (more) links.
        """
        return self._link(self._pair(folder), name, new_name, wanted)

    def _pair(self, folder: str) -> tuple[int, int]:
        """Descriptors of a folder of the old and the new tree."""
        if self._old is None:
            raise FileNotFoundError
        return self._old.open(folder), self._new.open(folder)

    def _link(
        self, folders: tuple[int, int], name: str, new_name: str, wanted: tuple[int, int, int]
    ) -> bool:
        old, new = folders
        found = os.stat(name, dir_fd=old, follow_symlinks=False)
        mode, size, mtime_ns = wanted
        if (
            found.st_mtime_ns != mtime_ns
            or found.st_size != size
            or found.st_mode != stat.S_IFREG | mode
            or (found.st_uid, found.st_gid) != self._owner
        ):
            return False
        os.link(name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
        return True

    def _create(self, folder: int, name: str, mode: int, mtime_ns: int, content: bytes) -> None:
        """Make one file, or none."""
        fd = os.open(name, _CREATE, mode, dir_fd=folder)
        try:
            if not self._exact:
                os.fchmod(fd, mode)
            written = os.write(fd, content) if content else 0
            while written < len(content):
                written += os.write(fd, content[written:])
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)


class _Folders:
    """The folders below a root; the last one stays open. Methods raise OSError."""

    def __init__(self, root: str, *, makes: bool = False, exact: bool = False) -> None:
        """makes: those that are missing are made."""
        self._makes = makes
        self._exact = exact
        self._root = os.open(root, _OPEN_FOLDER)
        self._path = ""
        self._open = self._root

    def open(self, path: str) -> int:
        """The descriptor of a folder, valid until the next call."""
        if path != self._path:
            self._leave()
            self._path = "\0"  # not a path: a failure on the way leaves none
            for part in path.split("/") if path else ():
                above = self._open
                self._open = self._enter(part, above)
                if above != self._root:
                    os.close(above)
            self._path = path
        return self._open

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        os.close(self._root)

    def _enter(self, name: str, above: int) -> int:
        try:
            return os.open(name, _OPEN_FOLDER, dir_fd=above)
        except FileNotFoundError:
            if not self._makes:
                raise
        try:  # noqa: SIM105 - contextlib is another import
            os.mkdir(name, FOLDER_MODE, dir_fd=above)
        except FileExistsError:
            pass  # the agent, which makes big files, was first; or it is a file
        fd = os.open(name, _OPEN_FOLDER, dir_fd=above)
        if not self._exact:
            os.fchmod(fd, FOLDER_MODE)
        return fd

    def _leave(self) -> None:
        if self._open != self._root:
            os.close(self._open)
        self._path, self._open = "", self._root


def say(content: list[Wish] | list[int], to: BinaryIO) -> None:
    """Write a message for the other end, which is the same interpreter. Raises OSError."""
    message = marshal.dumps(content)
    to.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    to.write(message)
    to.flush()


def hear(end: BinaryIO) -> Any:
    """The next message; None when the other end is closed."""
    length = int.from_bytes(end.read(_LENGTH_BYTES), "big")
    message = end.read(length)
    is_whole = length and len(message) == length
    return marshal.loads(message) if is_whole else None  # noqa: S302 - from ourselves


def main(agent: str, exact: str, tree: str, old: str) -> None:
    """Answer each list of wishes with the numbers of those that were not fulfilled."""
    maker = Maker(tree, old, exact=exact == "exact")
    try:
        # without its agent it must not go on: a new one removes what it made
        while (wishes := hear(sys.stdin.buffer)) is not None and os.getppid() == int(agent):
            say(maker.make(wishes), sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(0)  # nobody waits for the answer, nor for a complaint when it is flushed


if __name__ == "__main__":
    main(*sys.argv[1:])
