"""Unpacking a bundle into a new, empty folder: decide over every entry, then write.

A zip's central directory and a tar's headers are read first, and nothing is written if an entry
breaks a rule. A tgz would have to be inflated twice for that (0.4 s and more for every 100 MB),
so its entries are written as they are admitted: into a new folder that nobody uses yet, through
directory descriptors, with links made last; the rules over all entries are applied before that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.archive import kinds, tar_reader, zip_directory
from agent.archive.ahead import ahead
from agent.archive.batches import Batches, SeekingBatches, StreamBatches, TarContent
from agent.archive.draft import Draft
from agent.archive.gunzip import Gunzip
from agent.archive.index import LEVEL, Index
from agent.archive.known_records import KnownFiles, KnownRecords
from agent.archive.member import Member
from agent.archive.refusals import from_sqlite_error
from agent.archive.roll import Roll
from agent.archive.space import Space
from agent.archive.tree import Tree, make_root
from agent.archive.writer import Work, write_files
from agent.archive.zip_content import ZipContent
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.settings import Limits
from agent.system.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Unpacked:
    """files: regular files, `bytes` their content; reused: how many of them were only linked."""

    files: int
    bytes: int
    reused: int
    warnings: tuple[str, ...]


def unpack(
    bundle: Path,
    *,
    tree: Path,
    index: Path,
    limits: Limits,
    cancel: Cancel,
    progress: Callable[[int, int], None],
    reuse: tuple[Path, Path] | None = None,
) -> Unpacked:
    """Unpack the archive `bundle` into `tree`, which does not exist, and list it in `index`.

    reuse: tree and index of the old release, whose files are linked where nothing differs.
    progress: called with bytes done and in all. The caller syncs the file system, and removes
    `tree` after an error. Raises AgentError: BUNDLE_REFUSED, BUNDLE_DAMAGED, BUNDLE_MISSING,
    DISK_FULL (transient), RELEASE_DAMAGED (the old index), INSTALL_FAILED; Interrupted.
    """
    try:
        with kinds.open_bundle(bundle) as fd:
            kind = kinds.detect_open(fd)
            old_tree, old_index = _usable(reuse)
            request = _Request(tree, old_tree, limits, cancel, progress)
            with Draft(index, old_index) as draft:
                roll = Roll(draft.db, limits, os.fstat(fd).st_size)
                if kind is kinds.Kind.TGZ:
                    linked = _unpack_stream(request, fd, draft, roll)
                elif kind is kinds.Kind.ZIP:
                    linked = _unpack_zip(request, fd, draft, roll)
                else:
                    linked = _unpack_tar(request, fd, draft, roll)
    except sqlite3.Error as error:
        raise from_sqlite_error(error, f"unpack {bundle}") from error
    except AgentError as error:
        error.where = error.where or str(bundle)
        raise
    return Unpacked(roll.files, roll.bytes, linked, roll.warnings())


@dataclass(frozen=True, slots=True)
class _Request:
    tree: Path
    old_tree: Path | None
    limits: Limits
    cancel: Cancel
    progress: Callable[[int, int], None]


def open_seeking(
    fd: int, kind: kinds.Kind
) -> tuple[Iterator[Member], ZipContent | TarContent, int]:
    """The entries of a zip or tar, the reader of their content, and where that ends."""
    if kind is kinds.Kind.ZIP:
        directory = zip_directory.find_directory(fd)
        members = zip_directory.read_members(fd, directory)
        return members, ZipContent(fd), directory.offset
    members = tar_reader.read_members(tar_reader.FileStream(fd))
    return members, TarContent(fd), os.fstat(fd).st_size


def _unpack_tar(request: _Request, fd: int, draft: Draft, roll: Roll) -> int:
    """Unpack a tar; the count of linked files."""
    members, content, end = open_seeking(fd, kinds.Kind.TAR)
    roll.add(_cancellable(members, request.cancel))
    roll.judge()
    batches = SeekingBatches(draft, content, end, strip=roll.strip, size=roll.bytes)
    return _write_seeking(request, batches, draft, roll, strip=roll.strip)


def _unpack_zip(request: _Request, fd: int, draft: Draft, roll: Roll) -> int:
    """Unpack a zip; the count of linked files."""
    records = zip_directory.Records(fd, zip_directory.find_directory(fd))
    roll.note(KnownRecords(draft, roll, records).admitted(request.cancel))
    roll.judge()
    roll.refuse_overlaps()
    content = ZipContent(fd)
    known = KnownFiles(draft, content, records)
    # known files are linked by the paths that they have in the archive
    strip = 0 if known.has_any else roll.strip
    batches = SeekingBatches(
        draft, content, records.content_end, strip=strip, size=roll.bytes, known=known
    )
    return _write_seeking(request, batches, draft, roll, strip=strip)


def _write_seeking(
    request: _Request, batches: SeekingBatches, draft: Draft, roll: Roll, *, strip: int
) -> int:
    """Write what is judged; the count of linked files. strip: as files are written."""
    space = Space(request.tree.parent, request.limits)
    space.check(*draft.needed(strip, space.block()))
    exact = _make_root(request.tree)
    work = _work(request, batches, draft, strip=strip, exact=exact)
    linked = write_files(work, when_read=lambda: _fill(draft, roll))
    _finish(request.tree, roll, strip=strip, exact=exact)
    draft.finish()
    return linked


def _unpack_stream(request: _Request, fd: int, draft: Draft, roll: Roll) -> int:
    """Unpack a tgz; the count of linked files."""
    gunzip = Gunzip(fd, request.limits, request.cancel)
    exact = _make_root(request.tree)

    def judge() -> None:
        roll.judge()
        _fill(draft, roll)

    with contextlib.closing(ahead(gunzip.pieces())) as pieces:
        batches = StreamBatches(draft, roll, gunzip, pieces)
        work = _work(request, batches, draft, strip=0, exact=exact)
        linked = write_files(work, when_read=judge)
    _finish(request.tree, roll, strip=0, exact=exact)
    draft.finish()
    return linked


def _work(request: _Request, batches: Batches, draft: Draft, *, strip: int, exact: bool) -> Work:
    return Work(
        batches=batches,
        draft=draft,
        tree=request.tree,
        old_tree=request.old_tree,
        strip=strip,
        exact=exact,
        space=Space(request.tree.parent, request.limits),
        cancel=request.cancel,
        progress=request.progress,
    )


def _fill(draft: Draft, roll: Roll) -> None:
    """Fill the index."""
    draft.note_written(
        (pos, 0, hashlib.sha256(target.encode()).digest(), None, None, None)
        for pos, _, target in roll.links()
    )
    draft.fill(roll.strip)


def _finish(tree: Path, roll: Roll, *, strip: int, exact: bool) -> None:
    """Make folders without files and the links. strip: as files were written."""
    try:
        with Tree(tree, exact=exact) as made:
            for path in roll.folders():
                made.folder(path[strip:], make=True)
            for _, path, target in roll.links():
                made.symlink(path[strip:], target)
        if roll.strip and not strip:
            _unwrap(tree)
    except OSError as error:
        raise from_os_error(error, f"write {tree}", code=Code.INSTALL_FAILED) from error


def _unwrap(tree: Path) -> None:
    """Move what lies in the only folder of `tree` up into `tree`."""
    (top,) = os.listdir(tree)
    children = os.listdir(tree / top)
    beside = ".unwrapped"
    while beside in children:
        beside += "_"
    os.rename(tree / top, tree / beside)
    for child in children:
        os.rename(tree / beside / child, tree / child)
    os.rmdir(tree / beside)


def _make_root(tree: Path) -> bool:
    try:
        return make_root(tree)
    except OSError as error:
        raise from_os_error(error, f"make {tree}", code=Code.INSTALL_FAILED) from error


def _usable(reuse: tuple[Path, Path] | None) -> tuple[Path | None, Path | None]:
    """The old release's tree and index, if both are there and can be read, and ours wrote them."""
    if reuse is None or not reuse[0].is_dir():
        return None, None
    try:
        with Index(reuse[1]) as old:
            return reuse if old.level == LEVEL else (None, None)
    except AgentError:
        return None, None


def _cancellable(members: Iterator[Member], cancel: Cancel) -> Iterator[Member]:
    for count, member in enumerate(members):
        if not count % 1024:
            cancel.check()
        yield member
