"""A fingerprint of a whole tree: everything about it that an undo must put back."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from pathlib import Path

Fingerprint = dict[str, tuple[object, ...]]


def fingerprint(root: Path) -> Fingerprint:
    """By path below root ("." is root): kind, mode, owner, times, content, links, ACLs, xattrs.

    Files that are hard links of each other name their group, so that a broken or a new link
    between them shows. Nothing there: an empty fingerprint. The access and change times are left
    out: reading sets the one, and no program can set the other.
    """
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    found: Fingerprint = {}
    for path in _paths(root):
        name = os.path.relpath(path, root)
        status = os.lstat(path)
        found[name] = (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            _content(path, status),
            _xattrs(path),
        )
        if not stat.S_ISDIR(status.st_mode):
            groups[status.st_dev, status.st_ino].append(name)
    for names in groups.values():
        if len(names) > 1:
            for name in names:
                found[name] += (tuple(names),)
    return found


def _paths(root: Path) -> list[str]:
    if not os.path.lexists(root):
        return []
    paths = [str(root)]
    if root.is_dir() and not root.is_symlink():
        for folder, folders, files in os.walk(root):
            paths += [os.path.join(folder, name) for name in folders + files]
    return sorted(paths)


def _content(path: str, status: os.stat_result) -> object:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return status.st_rdev


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without
        return ()
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def without_folder_times(files: dict[str, tuple]) -> dict[str, tuple]:
    """A fingerprint in which only the times of folders, which installing changes, are left out."""
    return {
        path: (found[:3] + found[4:] if found[0].startswith("d") else found)
        for path, found in files.items()
    }
