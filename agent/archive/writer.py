"""Writing the files of an archive into a tree, or linking those that the old release has.

Two threads share the work on a batch: one reads, inflates, hashes and keeps the books, the other
makes the files. Both spend most of their time outside of the interpreter's lock, and hand over
only once a batch; two threads that each do everything are no quicker than one (measured).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.archive.ahead import ahead
from agent.archive.batches import SMALL_BYTES, Batches, Content
from agent.archive.draft import Draft
from agent.archive.member import Member
from agent.archive.refusals import refused
from agent.archive.space import Space
from agent.archive.tree import Tree, write_all
from agent.archive.zip_content import STORED, Feed
from agent.model.errors import Code, from_os_error
from agent.system.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Work:
    """What write_files() needs. strip: characters that every path loses; exact: see Tree."""

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
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(Tree(work.tree, exact=work.exact))
        old = stack.enter_context(Tree(work.old_tree)) if work.old_tree else None
        maker = _Maker(tree, old, work.batches.content, work.strip)
        pool = stack.enter_context(ThreadPoolExecutor(1, "unpack"))
        writer = _Writer(work, maker, pool)
        while writer.write_batch():
            pass
        return maker.linked


class _File(NamedTuple):
    """A small file to make. content: None as long as linking the old one may do."""

    member: Member
    packed: bytes
    content: bytes | None


class _Maker:
    """Makes files in the tree. In one thread at a time."""

    def __init__(self, tree: Tree, old: Tree | None, content: Content, strip: int) -> None:
        self._tree = tree
        self._old = old
        self._content = content
        self._strip = strip
        self._at: Member
        self._owner = (os.geteuid(), os.getegid())
        self.linked = 0

    def make(self, files: list[_File]) -> int:
        """Make small files; bytes of their content."""
        size = 0
        with self._translated():
            for member, packed, content in files:
                size += member.size
                if content is None:
                    if self.link(member):
                        continue
                    content = self._content.unpacked(member, packed)
                fd = self.create(member)
                try:
                    write_all(fd, content)
                    os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
                finally:
                    os.close(fd)
        return size

    def make_big(self, member: Member, pieces: Iterator[bytes]) -> None:
        """Make one file from the pieces of its content."""
        with self._translated():
            fd = self.create(member)
            try:
                for piece in pieces:
                    write_all(fd, piece)
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            finally:
                os.close(fd)

    def create(self, member: Member) -> int:
        """A descriptor on the new file of a member. Raises OSError."""
        self._at = member
        return self._tree.create(member.path[self._strip :], member.mode)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """OSErrors of what is done with the last created file as our own."""
        try:
            yield
        except (FileExistsError, NotADirectoryError) as error:
            raise refused(self._at.path, "is there twice, or is a folder as well") from error
        except OSError as error:
            doing = f"write {self._at.path[self._strip :]}"
            raise from_os_error(error, doing, code=Code.INSTALL_FAILED) from error

    def link(self, member: Member, beside: str = "") -> bool:
        """Link the old release's file (as `beside`), if it still is what its index says.

        A service may have written into it or changed its mode; the file system may not allow
        (more) links. Then the file is written like any other.
        """
        if self._old is None:
            return False
        path = member.path[self._strip :]
        try:
            found = self._old.stat(path)
            if (
                found.st_mode != stat.S_IFREG | member.mode
                or found.st_size != member.size
                or found.st_mtime_ns != member.mtime_ns
                or (found.st_uid, found.st_gid) != self._owner
            ):
                return False
            self._tree.link_from(self._old, path, beside or path)
        except OSError:
            return False
        self.linked += 1
        return True

    def replace_by_link(self, member: Member) -> None:
        """A big file of a stream is known to be the old one only after it was written."""
        beside = f".{member.pos}.linked"
        if self.link(member, beside):
            self._tree.rename(beside, member.path[self._strip :])


class _Writer:
    """Reads content, decides what is the same as before, and writes down what was made."""

    def __init__(self, work: Work, maker: _Maker, pool: ThreadPoolExecutor) -> None:
        self._work = work
        self._maker = maker
        self._pool = pool
        self._content = work.batches.content
        self._made: Future[int] | None = None

    def write_batch(self) -> bool:
        """Write one batch; False if there was none any more."""
        batch = self._work.batches.take()
        files, rows = [], []
        for member in batch:
            if max(member.size, member.packed) > SMALL_BYTES:
                self._wait()
                digest, raw = self._write_big(member)
            else:
                file, digest, raw = self._read_small(member)
                files.append(file)
            rows.append((member.pos, digest, raw if self._content.is_zip else None))
        self._work.draft.note_written(rows)
        self._wait()
        self._made = self._pool.submit(self._maker.make, files)
        if not batch:
            self._wait()
        return bool(batch)

    def _wait(self) -> None:
        """Until the files of the batch before are made."""
        if self._made:
            made, self._made = self._made, None
            self._note_done(made.result())

    def _note_done(self, size: int) -> None:
        """After every batch and every piece of a big file: how far it is, and may it go on."""
        self._work.batches.note_done(size)
        self._work.progress(*self._work.batches.progress())
        self._work.cancel.check()
        self._work.space.check()

    def _read_small(self, member: Member) -> tuple[_File, bytes, bytes]:
        """A file to make, the digests of its content and of its packed bytes."""
        packed = self._content.read(member)
        raw = hashlib.sha256(packed).digest()
        if member.old_digest and _is_same(member, raw):
            return _File(member, packed, None), member.old_digest, raw
        content = self._content.unpacked(member, packed)
        digest = raw if content is packed else hashlib.sha256(content).digest()
        return _File(member, packed, content), digest, raw

    def _write_big(self, member: Member) -> tuple[bytes, bytes]:
        """Write or link a file in pieces; the digests of its content and of its packed bytes."""
        if member.old_digest and self._content.rereads:
            whole = hashlib.sha256()
            for piece in self._content.packed_pieces(member):
                whole.update(piece)
                self._work.cancel.check()
            if _is_same(member, whole.digest()) and self._maker.link(member):
                self._note_done(member.size)
                return member.old_digest, whole.digest()
        packed, content = hashlib.sha256(), hashlib.sha256()
        with contextlib.closing(self._pieces(member, packed.update, content.update)) as pieces:
            self._maker.make_big(member, pieces)
        digest = content.digest()
        if digest == member.old_digest:
            self._maker.replace_by_link(member)
        return digest, digest if member.method == STORED else packed.digest()

    def _pieces(
        self, member: Member, feed_packed: Feed, feed: Feed
    ) -> Generator[bytes, None, None]:
        """The content of a big file; read and inflated ahead, unless its stream is already."""
        with contextlib.ExitStack() as stack:
            pieces = self._content.pieces(member, feed_packed)
            if self._content.rereads:
                pieces = stack.enter_context(contextlib.closing(ahead(pieces)))
            for piece in pieces:
                feed(piece)
                yield piece
                self._note_done(len(piece))


def _is_same(member: Member, raw: bytes) -> bool:
    """Whether the packed bytes are those of the old release's file, by digest and method.

    Stored bytes are the content itself. For deflated ones the old raw digest is another than that
    of the content, else the old ones were stored.
    """
    if member.method == STORED:
        return raw == member.old_digest
    return raw == member.old_raw != member.old_digest
