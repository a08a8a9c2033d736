"""Writing the files of an archive into a tree, or linking those that the old release has.

Reading, hashing and deciding are one thread's work, but for what runs long outside of the
interpreter's lock: the next batch of a zip is inflated in a second one. Files are made by a second
process. More threads were no quicker: a file is made by a handful of short system calls, and
handing the lock over costs as much as one of them (measured).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.archive.ahead import ahead
from agent.archive.batches import SMALL_BYTES, Batches
from agent.archive.draft import Draft
from agent.archive.make_queue import MakeQueue
from agent.archive.maker import Wish
from agent.archive.member import Member
from agent.archive.refusals import refused
from agent.archive.space import Space
from agent.archive.tree import Tree, write_all
from agent.archive.zip_content import STORED, Feed
from agent.model.errors import Code, from_os_error
from agent.system.cancel import Cancel

_MAKING = 2  # batches on their way through the queue; their content is kept until they are made


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
        queue = stack.enter_context(MakeQueue(work.tree, work.old_tree, exact=work.exact))
        pool = stack.enter_context(ThreadPoolExecutor(1, "inflate"))
        writer = _Writer(work, _Files(tree, queue, work.strip), pool)
        while writer.write_batch():
            pass
        writer.settle(leave=0)
        return writer.linked


class _Files:
    """Makes files in the tree, at once or by the queue."""

    def __init__(self, tree: Tree, queue: MakeQueue, strip: int) -> None:
        self._tree = tree
        self._strip = strip
        self._folder = ""  # the last that was made for a wish
        self.queue = queue

    def make(self, member: Member, pieces: Iterable[bytes]) -> None:
        """Make one file from the pieces of its content."""
        path = member.path[self._strip :]
        try:
            fd = self._tree.create(path, member.mode)
            try:
                for piece in pieces:
                    write_all(fd, piece)
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            finally:
                os.close(fd)
        except (FileExistsError, NotADirectoryError) as error:
            raise refused(member.path, "is there twice, or is a folder as well") from error
        except OSError as error:
            raise from_os_error(error, f"write {path}", code=Code.INSTALL_FAILED) from error

    def wish(self, member: Member, content: bytes | None) -> Wish:
        """What the queue is asked for; None: to link the old file. The folder for it is made."""
        folder, _, name = member.path[self._strip :].rpartition("/")
        if folder != self._folder:
            self._make_folder(folder)
        return folder, name, member.mode, member.size, member.mtime_ns, content

    def link(self, member: Member) -> bool:
        """Link the old release's file, if it still is what its index says."""
        folder, _, name = member.path[self._strip :].rpartition("/")
        self._make_folder(folder)
        return self.queue.link(folder, name, name, (member.mode, member.size, member.mtime_ns))

    def replace_by_link(self, member: Member) -> bool:
        """The same for a file that was written before it was known to be the old one."""
        path, beside = member.path[self._strip :], f".{member.pos}.linked"
        folder, _, name = path.rpartition("/")
        if not self.queue.link(folder, name, beside, (member.mode, member.size, member.mtime_ns)):
            return False
        self._tree.rename(posixpath.join(folder, beside), path)
        return True

    def _make_folder(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # making a file in it will tell why
            self._tree.folder(folder, make=True)
            self._folder = folder


class _Small(NamedTuple):
    """A file that was read in one piece. raw: digest of the packed bytes."""

    member: Member
    packed: bytes
    raw: bytes
    is_same: bool


class _Batch(NamedTuple):
    """Files to make; contents: of those that are not the same as before, once inflated."""

    files: list[_Small]
    contents: Future[list[bytes]]


class _Writer:
    """Reads content, decides what is the same as before, and writes down what was made."""

    def __init__(self, work: Work, files: _Files, pool: ThreadPoolExecutor) -> None:
        self._work = work
        self._files = files
        self._pool = pool
        self._content = work.batches.content
        self._read: _Batch | None = None
        self._making: deque[tuple[list[_Small], list[Wish]]] = deque()
        self.linked = 0

    def write_batch(self) -> bool:
        """Read a batch, and make the files of the one before; False when nothing is left."""
        members = self._work.batches.take()
        before, self._read = self._read, self._read_batch(members)
        if before:
            self._make_batch(before)
        return bool(members)

    def _read_batch(self, members: list[Member]) -> _Batch:
        """Read the small files, and have them inflated; big ones are made at once."""
        files = []
        for member in members:
            if max(member.size, member.packed) > SMALL_BYTES:
                self._note([(member.pos, *self._make_big(member))])
                continue
            packed = self._content.read(member)
            raw = hashlib.sha256(packed).digest()
            files.append(_Small(member, packed, raw, _is_same(member, raw)))
        return _Batch(files, self._pool.submit(self._inflate, files))

    def _inflate(self, files: list[_Small]) -> list[bytes]:
        return [
            self._content.unpacked(file.member, file.packed) for file in files if not file.is_same
        ]

    def _make_batch(self, batch: _Batch) -> None:
        contents = iter(batch.contents.result())
        wishes, rows = [], []
        for member, packed, raw, is_same in batch.files:
            content, digest = None, member.old_digest if is_same else None
            if digest is None:
                content = next(contents)
                digest = raw if content is packed else hashlib.sha256(content).digest()
            wishes.append(self._files.wish(member, content))
            rows.append((member.pos, digest, raw))
        self._files.queue.put(wishes)
        self._making.append((batch.files, wishes))
        self._note(rows)
        self.settle(leave=_MAKING)
        self._note_done(sum(file.member.size for file in batch.files))

    def settle(self, *, leave: int) -> None:
        """See that all batches are made but the last ones; what the queue could not do is done."""
        while len(self._making) > leave:
            files, wishes = self._making.popleft()
            failed = self._files.queue.take()
            self.linked += sum(file.is_same for file in files)
            for number in failed:
                member, packed, _, is_same = files[number]
                content = wishes[number][-1]
                self.linked -= is_same
                if content is None:
                    content = self._content.unpacked(member, packed)
                self._files.make(member, (content,))

    def _make_big(self, member: Member) -> tuple[bytes, bytes]:
        """Make or link a file in pieces; the digests of its content and of its packed bytes."""
        if member.old_digest and self._content.rereads:
            whole = hashlib.sha256()
            for piece in self._content.packed_pieces(member):
                whole.update(piece)
                self._work.cancel.check()
            if _is_same(member, whole.digest()) and self._files.link(member):
                self.linked += 1
                self._note_done(member.size)
                return member.old_digest, whole.digest()
        packed, content = hashlib.sha256(), hashlib.sha256()
        with contextlib.closing(self._pieces(member, packed.update, content.update)) as pieces:
            self._files.make(member, pieces)
        digest = content.digest()
        if digest == member.old_digest and self._files.replace_by_link(member):
            self.linked += 1
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

    def _note(self, rows: list[tuple[int, bytes, bytes]]) -> None:
        """Write down positions and digests; only a zip's packed bytes have one of their own."""
        if self._content.is_zip:
            self._work.draft.note_written(rows)
        else:
            self._work.draft.note_written((pos, digest, None) for pos, digest, _ in rows)

    def _note_done(self, size: int) -> None:
        """After every batch and every piece of a big file: how far it is, and may it go on."""
        self._work.batches.note_done(size)
        self._work.progress(*self._work.batches.progress())
        self._work.cancel.check()
        self._work.space.check()


def _is_same(member: Member, raw: bytes) -> bool:
    """Whether the packed bytes are those of an old release's file, by digest and method.

    Stored bytes are the content itself. For deflated ones the old raw digest is another than that
    of the content, else the old ones were stored.
    """
    if member.old_digest is None:
        return False
    if member.method == STORED:
        return raw == member.old_digest
    return raw == member.old_raw != member.old_digest
