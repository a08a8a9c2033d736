"""What of a folder goes into its bundle, in the order in which it is packed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.archive.refusals import shown
from agent.formats import bundle_tree, manifest
from agent.model.errors import AgentError, Code, from_os_error
from agent.publish import ignore

_ODD = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """path: below the folder. found: its lstat. target: where a link points to, as it is kept."""

    path: str
    found: os.stat_result
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Contents:
    """left_out: what is ignored, each folder once and with a slash at its end."""

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]


def read_contents(folder: Path, ignored: ignore.Ignore) -> Contents:
    """Everything below `folder` that is packed: each folder before what is in it, sorted by name.

    release.json in the root is not listed: it is written anew. The order is that of the names'
    code points, whatever the file system says. Raises AgentError (BUNDLE_REFUSED) for what no
    bundle can hold, and for what cannot be read.
    """
    left_out: list[str] = []
    try:
        entries = tuple(_walk(folder, "", ignored, left_out))
    except OSError as error:
        doing = f"read {error.filename or folder}"
        remedy = f"Permit it to this user, or leave it out in {ignore.FILENAME}"
        raise from_os_error(error, doing, code=Code.BUNDLE_REFUSED, remedy=remedy) from error
    return Contents(entries, tuple(left_out))


def _walk(root: Path, above: str, ignored: ignore.Ignore, left_out: list[str]) -> Iterator[Entry]:
    for name in sorted(os.listdir(root / above)):
        path = f"{above}/{name}" if above else name
        found = os.lstat(root / path)
        is_folder = stat.S_ISDIR(found.st_mode)
        if ignored.leaves_out(path, is_folder=is_folder):
            left_out.append(f"{path}/" if is_folder else path)
            continue
        if path == manifest.FILENAME and not is_folder:
            continue
        yield _entry(root, path, found)
        if is_folder:
            yield from _walk(root, path, ignored, left_out)


def _entry(root: Path, path: str, found: os.stat_result) -> Entry:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise _refused(os.fsencode(path), "its name is not UTF-8") from error
    kind = stat.S_IFMT(found.st_mode)
    if kind in _ODD:
        raise _refused(path, f"it is {_ODD[kind]}")
    if kind == stat.S_IFLNK:
        return Entry(path, found, os.fsencode(os.readlink(root / path)))
    return Entry(path, found)


def _refused(path: str | bytes, cause: str) -> AgentError:
    return AgentError(
        f"cannot bundle {shown(path)}: {cause}",
        code=Code.BUNDLE_REFUSED,
        remedy=f"Remove it, or leave it out in {ignore.FILENAME}",
    )


class PackedTree:
    """A folder as its bundle will be: the lint of it sees nothing of what is left out."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self._folder = bundle_tree.FolderTree(folder)
        self._paths = {"", manifest.FILENAME, *(each.path for each in contents.entries)}

    def kind(self, path: str) -> str:
        """Give "file" (a link is one too), "folder" or "" where nothing is."""
        plain = "/".join(part for part in path.split("/") if part not in ("", "."))
        return self._folder.kind(plain) if plain in self._paths else ""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        prefix = f"{folder}/" if folder else ""
        return [name for name in self._folder.names(folder) if f"{prefix}{name}" in self._paths]

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a file."""
        return self._folder.beginning(path, size)
