"""Writing the files of an archive into a tree, or linking those that the old release has.

Two threads take batches in turn: the kernel's work for a new file and zlib's run outside of the
interpreter's lock, so that the second thread brings a fifth to a quarter. Linking does not gain
from it (measured), so with an old release there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agent.archive.ahead import ahead
from agent.archive.batches import SMALL_BYTES, Batches
from agent.archive.draft import Draft
from agent.archive.member import Member
from agent.archive.refusals import refused
from agent.archive.space import Space
from agent.archive.tree import Tree, write_all
from agent.archive.zip_content import STORED
from agent.model.errors import Code, from_os_error
from agent.system.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Work:
    """What the threads share. strip: characters that every path loses; exact: see Tree."""

    batches: Batches
    draft: Draft
    tree: Path
    old_tree: Path | None
    strip: int
    exact: bool
    space: Space
    cancel: Cancel
    progress: Callable[[int, int], None]


def write_files(work: Work) -> int:
    """Write every file; the count of those that were linked from the old release.

    Raises AgentError: BUNDLE_REFUSED, BUNDLE_DAMAGED, DISK_FULL, INSTALL_FAILED; Interrupted.
    """
    lock, stop = threading.RLock(), threading.Event()
    count = 1 if work.old_tree else 2
    with contextlib.ExitStack() as stack:
        writers = [_Writer(work, stack, lock, stop) for _ in range(count)]
        with ThreadPoolExecutor(count, "unpack") as pool:
            runs = [pool.submit(writer.run) for writer in writers]
        return sum(run.result() for run in runs)


class _Writer:
    """One thread's part of the work."""

    def __init__(
        self,
        work: Work,
        stack: contextlib.ExitStack,
        lock: threading.RLock,
        stop: threading.Event,
    ) -> None:
        self._work = work
        self._lock = lock
        self._stop = stop
        self._content = work.batches.content()
        self._tree = stack.enter_context(Tree(work.tree, exact=work.exact))
        self._old = stack.enter_context(Tree(work.old_tree)) if work.old_tree else None
        self._owner = (os.geteuid(), os.getegid())
        self._linked = 0

    def run(self) -> int:
        """Take batches until there are none, or another thread failed; the count of links."""
        try:
            while not self._stop.is_set() and self._take():
                pass
        except BaseException:
            self._stop.set()
            raise
        return self._linked

    def _take(self) -> bool:
        with self._lock:
            batch = self._work.batches.take()
            if self._work.batches.in_turn():
                self._store_all(batch)
                return True
        self._store_all(batch)
        return bool(batch)

    def _store_all(self, batch: list[Member]) -> None:
        rows = [self._store(member) for member in batch]
        with self._lock:
            self._work.draft.note_written(rows)
        self._note_done(sum(member.size for member in batch if not _is_big(member)))

    def _note_done(self, size: int) -> None:
        """After every batch and every piece of a big file: how far it is, and may it go on."""
        with self._lock:
            self._work.batches.note_done(size)
            done = self._work.batches.progress()
        self._work.progress(*done)
        self._work.cancel.check()
        self._work.space.check()

    def _store(self, member: Member) -> tuple[int, bytes, bytes | None]:
        """Write or link one file; its position and digests, for the index."""
        path = member.path[self._work.strip :]
        try:
            if _is_big(member):
                digest, raw = self._store_big(member, path)
            else:
                digest, raw = self._store_small(member, path)
        except (FileExistsError, NotADirectoryError) as error:
            raise refused(member.path, "is there twice, or is a folder as well") from error
        except OSError as error:
            raise from_os_error(error, f"write {path}", code=Code.INSTALL_FAILED) from error
        return member.pos, digest, raw

    def _store_small(self, member: Member, path: str) -> tuple[bytes, bytes | None]:
        packed = self._content.read(member)
        raw = hashlib.sha256(packed).digest()
        if member.old_digest and _is_same(member, raw) and self._link(member, path):
            return member.old_digest, self._raw(raw)
        content = self._content.unpacked(member, packed)
        fd = self._tree.create(path, member.mode)
        try:
            write_all(fd, content)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)
        digest = raw if content is packed else hashlib.sha256(content).digest()
        return digest, self._raw(raw)

    def _store_big(self, member: Member, path: str) -> tuple[bytes, bytes | None]:
        if member.old_digest and self._content.rereads:
            whole = hashlib.sha256()
            for piece in self._content.packed_pieces(member):
                whole.update(piece)
                self._work.cancel.check()
            if _is_same(member, whole.digest()) and self._link(member, path):
                self._note_done(member.size)
                return member.old_digest, self._raw(whole.digest())
        packed, content = hashlib.sha256(), hashlib.sha256()
        fd = self._tree.create(path, member.mode)
        try:
            for piece in self._pieces(member, packed.update):
                content.update(piece)
                write_all(fd, piece)
                self._note_done(len(piece))
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)
        digest = content.digest()
        if digest == member.old_digest:
            self._replace_by_link(member, path)
        return digest, self._raw(digest if member.method == STORED else packed.digest())

    def _pieces(self, member: Member, feed: Callable[[bytes], object]) -> Iterator[bytes]:
        """The content of a big file; read and inflated ahead, unless its stream is already."""
        pieces = self._content.pieces(member, feed)
        if not self._content.rereads:
            yield from pieces
            return
        with contextlib.closing(ahead(pieces)) as read_ahead:
            yield from read_ahead

    def _raw(self, digest: bytes) -> bytes | None:
        return digest if self._content.is_zip else None

    def _link(self, member: Member, path: str, new: str = "") -> bool:
        """Link the old release's file instead, if it still is what its index says.

        A service may have written into it or changed its mode; the file system may not allow
        (more) links. Then the file is written like any other.
        """
        if self._old is None:
            return False
        try:
            found = self._old.stat(path)
            if (
                found.st_mode != stat.S_IFREG | member.mode
                or found.st_size != member.size
                or found.st_mtime_ns != member.mtime_ns
                or (found.st_uid, found.st_gid) != self._owner
            ):
                return False
            self._tree.link_from(self._old, path, new or path)
        except OSError:
            return False
        self._linked += 1
        return True

    def _replace_by_link(self, member: Member, path: str) -> None:
        """A big file of a stream is known to be the old one only after it was written."""
        beside = f".{member.pos}.linked"
        if self._link(member, path, beside):
            self._tree.rename(beside, path)


def _is_big(member: Member) -> bool:
    return max(member.size, member.packed) > SMALL_BYTES


def _is_same(member: Member, raw: bytes) -> bool:
    """Whether the packed bytes are those of the old release's file, by digest and method.

    Stored bytes are the content itself. For deflated ones the old raw digest is another than that
    of the content, else the old ones were stored.
    """
    if member.method == STORED:
        return raw == member.old_digest
    return raw == member.old_raw != member.old_digest
