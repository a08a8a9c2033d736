"""Checking an unpacked release against its index, and putting files back from its bundle."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
import secrets
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from agent.archive import kinds, names, tar_reader
from agent.archive.batches import Content
from agent.archive.draft import Draft
from agent.archive.gunzip import Gunzip
from agent.archive.index import Entry, Index
from agent.archive.member import SMALL_BYTES, EntryKind, Member
from agent.archive.refusals import from_sqlite_error
from agent.archive.removal import remove_tree
from agent.archive.roll import Roll
from agent.archive.tree import Tree, write_all
from agent.archive.unpack import open_seeking
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.settings import Limits
from agent.system.cancel import Cancel

__all__ = ["check_release", "remove_tree", "restore_files"]

_PIECE_BYTES = 1024 * 1024
_CHECK_EVERY = 256
_DEPLOY_AGAIN = "Deploy the revision again from its source: agentctl retry"


def check_release(tree: Path, index: Path, *, thorough: bool, cancel: Cancel) -> list[str]:
    """The relative paths that are not as they were unpacked, ordered.

    A path is damaged if it is missing, of another kind, a link to elsewhere, or a file of another
    size or mtime; thorough: also if its content differs. Raises AgentError (RELEASE_DAMAGED) if
    the index cannot be read; Interrupted.
    """
    damaged = []
    with Index(index) as listed:
        try:
            there = Tree(tree)
        except OSError:
            return [entry.path for entry in listed]
        with there:
            for count, entry in enumerate(listed):
                if not count % _CHECK_EVERY:
                    cancel.check()
                try:
                    if not _is_whole(there, entry, thorough=thorough, cancel=cancel):
                        damaged.append(entry.path)
                except OSError:
                    damaged.append(entry.path)
    return damaged


def restore_files(
    bundle: Path,
    tree: Path,
    index: Path,
    paths: Collection[str],
    *,
    limits: Limits,
    cancel: Cancel,
) -> None:
    """Put exactly `paths`, as check_release() names them, back as they were unpacked.

    Each file is written beside its place and renamed into it; folders and links are made from the
    index. Raises AgentError (RELEASE_DAMAGED) if the bundle is gone or is another one, or a path
    is not in the index; DISK_FULL; Interrupted.
    """
    try:
        tree.mkdir(mode=0o755, exist_ok=True)
        with Index(index) as listed, Tree(tree) as there:
            restoration = _Restoration(tree, there, cancel)
            for path in sorted(paths):
                entry = listed.lookup(path)
                if entry is None:
                    raise _lost(f"{path} is not in its index {index}")
                restoration.take(entry)
            if restoration.files:
                restoration.read_bundle(bundle, index, limits)
    except OSError as error:
        raise from_os_error(error, f"restore {tree}", code=Code.RELEASE_DAMAGED) from error
    except sqlite3.Error as error:
        raise from_sqlite_error(error, f"restore {tree}") from error


class _Restoration:
    """Puts back the entries it takes: folders and links at once, files from the bundle."""

    def __init__(self, root: Path, tree: Tree, cancel: Cancel) -> None:
        self._root = root
        self._tree = tree
        self._cancel = cancel
        self.files: dict[str, Entry] = {}

    def take(self, entry: Entry) -> None:
        """Make a folder or link, whatever is in its place; keep a file for read_bundle()."""
        if entry.kind == EntryKind.FILE:
            self.files[entry.path] = entry
            return
        if self._is_folder(entry.path):
            if entry.kind == EntryKind.DIR:
                return
            self._remove_folder(entry.path)
        if entry.kind == EntryKind.DIR:
            with contextlib.suppress(FileNotFoundError):
                self._tree.unlink(entry.path)
            self._tree.folder(entry.path, make=True)
        else:
            beside = self._beside(entry.path)
            self._tree.symlink(beside, entry.target or "")
            self._tree.rename(beside, entry.path)

    def read_bundle(self, bundle: Path, index: Path, limits: Limits) -> None:
        """Restore the files that were taken; raises AgentError (RELEASE_DAMAGED)."""
        left = set(self.files)
        try:
            with kinds.open_bundle(bundle) as fd:
                for path, pieces in _contents(fd, index, limits, self._cancel):
                    if path in left:
                        self._restore(self.files[path], pieces())
                        left.remove(path)
                    if not left:
                        return
        except AgentError as error:
            if error.code in (Code.BUNDLE_MISSING, Code.BUNDLE_DAMAGED, Code.BUNDLE_REFUSED):
                raise _lost(f"its bundle {bundle} cannot be read: {error.message}") from error
            raise
        raise _lost(f"its bundle {bundle} has no {min(left)}")

    def _restore(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        beside = self._beside(entry.path)
        try:
            self._write(beside, entry, pieces)
            if self._is_folder(entry.path):
                self._remove_folder(entry.path)
            self._tree.rename(beside, entry.path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._tree.unlink(beside)
            raise

    def _write(self, path: str, entry: Entry, pieces: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        fd = self._tree.create(path, entry.mode)
        try:
            for piece in pieces:
                self._cancel.check()
                digest.update(piece)
                write_all(fd, piece)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        if digest.digest() != entry.digest:
            raise _lost(f"{entry.path} has another content in its bundle")

    def _is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self._tree.stat(path).st_mode)
        except FileNotFoundError:
            return False

    def _remove_folder(self, path: str) -> None:
        """Remove a folder that is in the way, from the root, so that no path leads through it."""
        removed = self._beside("")
        self._tree.rename(path, removed)
        remove_tree(self._root / removed, self._cancel)

    def _beside(self, path: str) -> str:
        """A new name in the folder of `path`."""
        return posixpath.join(names.parent(path), f".restored-{secrets.token_hex(8)}")


def _contents(
    fd: int, index: Path, limits: Limits, cancel: Cancel
) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    """Every file of a bundle as it is named in the release, and what gives its content."""
    kind = kinds.detect_open(fd)
    with Draft(index.with_name(f"{index.name}.restore")) as draft:
        roll = Roll(draft.db, limits, os.fstat(fd).st_size)
        if kind is kinds.Kind.TGZ:
            roll.add(tar_reader.read_members(_inflate(fd, limits, cancel)))
            roll.judge()
            yield from _stream_contents(_inflate(fd, limits, cancel), roll.strip)
            return
        members, content, end = open_seeking(fd, kind)
        roll.add(members)
        roll.judge()
        after = -1
        while batch := draft.rows_after(after, roll.strip, end):
            cancel.check()
            after = batch[-1].pos
            for member in batch:
                yield member.path[roll.strip :], functools.partial(_pieces, content, member)


def _inflate(fd: int, limits: Limits, cancel: Cancel) -> tar_reader.PieceStream:
    return tar_reader.PieceStream(Gunzip(fd, limits, cancel).pieces())


def _stream_contents(
    stream: tar_reader.PieceStream, strip: int
) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    for member in tar_reader.read_members(stream):
        path = names.clean(member.path)
        if member.kind is EntryKind.FILE and not names.is_skipped(path):
            yield path[strip:], functools.partial(tar_reader.read_pieces, stream, member)


def _pieces(content: Content, member: Member) -> Iterator[bytes]:
    if max(member.size, member.packed) > SMALL_BYTES:
        yield from content.pieces(member, lambda _packed: None)
    else:
        yield content.unpacked(member, content.read(member))


def _lost(cause: str) -> AgentError:
    return AgentError(
        f"cannot restore the release: {cause}", code=Code.RELEASE_DAMAGED, remedy=_DEPLOY_AGAIN
    )


def _is_whole(tree: Tree, entry: Entry, *, thorough: bool, cancel: Cancel) -> bool:
    """Whether an entry is as listed. Raises OSError where it is not to be reached."""
    found = tree.stat(entry.path)
    if entry.kind == EntryKind.DIR:
        return stat.S_ISDIR(found.st_mode)
    if entry.kind == EntryKind.LINK:
        return stat.S_ISLNK(found.st_mode) and tree.read_link(entry.path) == entry.target
    if not stat.S_ISREG(found.st_mode):
        return False
    if (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime_ns):
        return False
    return not thorough or _hash_file(tree, entry.path, cancel) == entry.digest


def _hash_file(tree: Tree, path: str, cancel: Cancel) -> bytes:
    digest = hashlib.sha256()
    fd = tree.open(path)
    try:
        while piece := os.read(fd, _PIECE_BYTES):
            digest.update(piece)
            cancel.check()
    finally:
        os.close(fd)
    return digest.digest()
