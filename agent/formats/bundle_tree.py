"""What an appspec says against what its bundle holds."""

from __future__ import annotations

import itertools
import os
import posixpath
import stat
from pathlib import Path
from typing import Protocol

from agent.formats import installed_paths, traps, wording, yamldoc
from agent.formats.findings import Findings
from agent.model.appspec import AppSpec, Hook, Permission, Problem

_BEGINNING = 512  # bytes of a script, for its first line


class BundleTree(Protocol):
    """A bundle's files. Paths are relative to its root, which is ""."""

    def kind(self, path: str) -> str:
        """Give "file" (a link is one too), "folder" or "" where nothing is."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a file."""


class FolderTree:
    """An unpacked bundle."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def kind(self, path: str) -> str:
        """Give "file", "folder" or ""; links are not followed, as AWS's agent copies them."""
        try:
            mode = os.lstat(self._root / path).st_mode
        except OSError:
            return ""
        return "folder" if stat.S_ISDIR(mode) else "file"

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none where it cannot be read."""
        try:
            return sorted(os.listdir(self._root / folder))
        except OSError:
            return []

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a regular file, else none."""
        try:
            if not stat.S_ISREG(os.stat(self._root / path).st_mode):
                return b""
            with open(self._root / path, "rb") as file:
                return file.read(size)
        except OSError:
            return b""


def check_bundle(appspec: AppSpec, tree: BundleTree, document: yamldoc.Document) -> list[Problem]:
    """The problems that only the bundle's files show, in the order of the file.

    document: the appspec's own, for the places.
    """
    found = Findings(yamldoc.Document(document.file, None, (), values=document.values))
    for event, hooks in appspec.hooks.items():
        for index, hook in enumerate(hooks):
            _check_hook(("hooks", event.value, index, "location"), hook, tree, found)
    _check_files(appspec, tree, found)
    paths = installed_paths.InstalledPaths(appspec.files, tree)
    for index, collision in paths.collisions():
        message = f"installs {wording.name(collision)}, which an earlier entry installs already"
        found.error(("files", index), message, "take one of them away")
    for index, permission in enumerate(appspec.permissions):
        _check_permission(("permissions", index), permission, paths, found)
    return list(found.sorted())


def _check_hook(path: yamldoc.Path, hook: Hook, tree: BundleTree, found: Findings) -> None:
    location = hook.location
    kind = tree.kind(location)
    if kind == "file":
        first, line_break, _ = tree.beginning(location, _BEGINNING).partition(b"\n")
        if line_break and first.startswith(b"#!") and first.endswith(b"\r"):
            message = f"{wording.name(location)} begins with a #! line that ends in CR LF"
            hint = f"no interpreter has that name; convert it: sed -i 's/\\r$//' {location}"
            found.error(path, message, hint)
    elif kind == "folder":
        found.error(path, f"{wording.name(location)} is a folder; a script belongs here")
    else:
        words = location.split()
        hint = _near(tree, location)
        if len(words) > 1 and tree.kind(words[0]) == "file":
            hint = "a location takes no arguments: write a script that gives them"
        found.error(path, f"{wording.name(location)} is not in the bundle", hint)


def _check_files(appspec: AppSpec, tree: BundleTree, found: Findings) -> None:
    for index, mapping in enumerate(appspec.files):
        source, destination = mapping.source, mapping.destination
        kind = tree.kind(source)
        name = posixpath.basename(source)
        if not kind:
            has_glob = any(sign in source for sign in "*?[")
            hint = "patterns are not expanded: name the folder" if has_glob else ""
            message = f"{wording.name(source)} is not in the bundle"
            found.error(("files", index, "source"), message, hint or _near(tree, source))
        elif kind == "folder" and source and traps.is_shared_folder(destination):
            found.warn(("files", index, "destination"), *traps.shared_folder(destination))
        elif (
            kind == "file"
            and posixpath.basename(destination) == name
            and not _is_used_as_folder(destination, appspec, index)
        ):
            message = f"becomes a folder; the file will be {wording.shortened(destination)}/{name}"
            hint = f"if that is not meant, write {posixpath.dirname(destination)}"
            found.warn(("files", index, "destination"), message, hint)


def _is_used_as_folder(destination: str, appspec: AppSpec, index: int) -> bool:
    """Whether another entry goes there or below: then nobody takes it for the file itself."""
    others = (*appspec.files[:index], *appspec.files[index + 1 :])
    return any(
        other.destination == destination or other.destination.startswith(f"{destination}/")
        for other in others
    )


def _check_permission(
    path: yamldoc.Path,
    permission: Permission,
    paths: installed_paths.InstalledPaths,
    found: Findings,
) -> None:
    name = wording.name(permission.object)
    kind = paths.kind(permission.object)
    if not kind:
        message = f"nothing of this bundle is installed at {name} or below, so this sets nothing"
        found.warn((*path, "object"), message)
    elif kind == "file" and "file" not in permission.types:
        found.warn((*path, "type"), f"{name} is a file, so this sets nothing")
    elif kind == "file":
        if permission.pattern != "**":
            message = f"{name} is a file, which takes no pattern but **"
            found.error((*path, "pattern"), message, "take it away")
        if permission.excludes:
            found.error((*path, "except"), f"{name} is a file, which takes no except")
        if any(entry.default for entry in permission.acls):
            found.error((*path, "acls"), f"{name} is a file, which takes no default entries")
    elif _closes_folders(permission) and paths.has_folders_below(permission.object):
        message = f"{permission.mode:o} also applies to folders, which only root can then enter"
        found.warn((*path, "mode"), message, "add type: [file]")


def _closes_folders(permission: Permission) -> bool:
    """Whether it sets a mode without an x on folders."""
    mode = permission.mode
    return mode is not None and not mode & 0o111 and "directory" in permission.types


def _near(tree: BundleTree, path: str) -> str:
    """A suggestion for a path that is not in the bundle."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/")[:50]:
        names = tree.names("/".join(parts))
        parts.append(part if part in names else wording.closest(part, names))
        if not parts[-1]:
            break
    else:
        return f"did you mean {wording.name('/'.join(parts))}?"
    last = posixpath.basename(path)
    for folder in itertools.islice(tree.names(""), 200):
        if tree.kind(f"{folder}/{last}"):
            return f"did you mean {wording.name(f'{folder}/{last}')}?"
    return ""
