"""Which paths an appspec's `files` would install, asked one at a time.

Nothing is listed in memory: a bundle may have a million files.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator
from typing import Protocol

from agent.model.appspec import FileMapping

_MOST_COMPARED = 20  # mappings that meet in one folder; more are compared by plan
_DEEPEST = 64


class _Tree(Protocol):
    def kind(self, path: str) -> str: ...

    def names(self, folder: str) -> list[str]: ...


class InstalledPaths:
    """The destinations of mappings whose sources lie in a tree."""

    def __init__(self, mappings: tuple[FileMapping, ...], tree: _Tree) -> None:
        self._tree = tree
        self._files: dict[str, int] = {}  # path of a file -> the first mapping that installs it
        self._folders: dict[str, list[tuple[str, int]]] = {}  # destination -> sources
        self._above: set[str] = set()  # every folder above something installed
        self._again: list[tuple[int, str]] = []
        for index, mapping in enumerate(mappings):
            if tree.kind(mapping.source) == "folder":
                self._folders.setdefault(mapping.destination, []).append((mapping.source, index))
                self._above.update(_upwards(mapping.destination))
            else:
                name = posixpath.basename(mapping.source)
                target = posixpath.join(mapping.destination, name)
                self._above.update(_upwards(mapping.destination))
                if self._files.setdefault(target, index) != index:
                    self._again.append((index, target))
        self._with_folders = {posixpath.dirname(each) for each in self._above if each != "/"}

    def kind(self, path: str) -> str:
        """Give "file" or "folder" for what would be at a path on the host, else ""."""
        if path in self._files:
            return "file"
        for _, source, _ in self._sources(path):
            kind = self._tree.kind(source)
            if kind:
                return kind
        return "folder" if path in self._above else ""

    def has_folders_below(self, path: str) -> bool:
        """Whether a folder would be made below a path."""
        return path in self._with_folders or any(
            self._tree.kind(posixpath.join(source, name)) == "folder"
            for _, source, _ in self._sources(path)
            for name in self._tree.names(source)
        )

    def collisions(self) -> Iterator[tuple[int, str]]:
        """Mappings that install a path which an other one installs, and one such path each."""
        yield from self._again
        for target, index in self._files.items():
            for _, source, number in itertools.islice(self._sources(target), _MOST_COMPARED):
                if self._tree.kind(source):
                    yield max(index, number), target
                    break
        for destination, sources in self._folders.items():
            for source, index in sources[:_MOST_COMPARED]:
                path, number = self._meets(destination, source, index)
                if path:
                    yield max(index, number), posixpath.join(destination, path)

    def _meets(self, destination: str, source: str, index: int) -> tuple[str, int]:
        """A path that a mapping and another one both install below a destination, or ""."""
        others = itertools.islice(self._sources(destination), _MOST_COMPARED)
        for folder, other, number in others:
            if folder != destination or number < index:  # each pair once
                path = self._meeting(source, other, 0)
                if path:
                    return path, number
        return "", index

    def _sources(self, path: str) -> Iterator[tuple[str, str, int]]:
        """Destination, where in the tree the path would come from, and by which mapping."""
        for folder in _upwards(path):
            rest = posixpath.relpath(path, folder)
            for source, index in self._folders.get(folder, ()):
                inner = posixpath.normpath(posixpath.join(source, rest))
                yield folder, "" if inner == "." else inner, index

    def _meeting(self, one: str, other: str, depth: int) -> str:
        """A path that two folders of the tree both have, and not as folders; else ""."""
        if depth > _DEEPEST:
            return ""
        for name in sorted(set(self._tree.names(one)) & set(self._tree.names(other))):
            both = (posixpath.join(one, name), posixpath.join(other, name))
            if any(self._tree.kind(path) != "folder" for path in both):
                return name
            inner = self._meeting(*both, depth + 1)
            if inner:
                return f"{name}/{inner}"
        return ""


def _upwards(path: str) -> Iterator[str]:
    """An absolute path and every folder above it."""
    while path != "/":
        yield path
        path = posixpath.dirname(path)
    yield "/"
