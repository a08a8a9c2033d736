"""Writing the files of an archive into a tree, or linking those that the old release has.

Reading, hashing and deciding are one thread's work, but for what runs long outside of the
interpreter's lock: the next batch of a zip is inflated in a second one. Files are made by a second
process. More threads were no quicker: a file is made by a handful of short system calls, and
handing the lock over costs as much as one of them (measured).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agent.archive import tar_reader
from agent.archive.ahead import ahead
from agent.archive.batches import Batch, Batches
from agent.archive.draft import Draft
from agent.archive.known import Stretch
from agent.archive.make_queue import MakeQueue
from agent.archive.maker import Wish
from agent.archive.member import SMALL_BYTES, Member
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


def write_files(work: Work, *, when_read: Callable[[], None]) -> int:
    """Write every file; the count of those that were linked from the old release.

    when_read: called when everything is read, while the last files may still be made.
    Raises AgentError: BUNDLE_REFUSED, BUNDLE_DAMAGED, DISK_FULL, INSTALL_FAILED; Interrupted.
    """
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(Tree(work.tree, exact=work.exact))
        queue = stack.enter_context(MakeQueue(work.tree, work.old_tree, exact=work.exact))
        pool = stack.enter_context(ThreadPoolExecutor(1, "inflate"))
        writer = _Writer(work, _Files(tree, queue, work.strip), pool)
        while writer.write_batch():
            pass
        when_read()
        writer.settle(leave=0)
        return writer.linked


class _Files:
    """Makes files in the tree, at once or by the queue."""

    def __init__(self, tree: Tree, queue: MakeQueue, strip: int) -> None:
        self._tree = tree
        self._strip = strip
        self.queue = queue

    def make(self, wish: Wish, pieces: Iterable[bytes]) -> None:
        """Make one file from the pieces of its content."""
        folder, name, mode, _, mtime_ns, _ = wish
        path = posixpath.join(folder, name)
        try:
            fd = self._tree.create(path, mode)
            try:
                for piece in pieces:
                    write_all(fd, piece)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)
        except (FileExistsError, NotADirectoryError) as error:
            raise refused(path, "is there twice, or is a folder as well") from error
        except OSError as error:
            raise from_os_error(error, f"write {path}", code=Code.INSTALL_FAILED) from error

    def wish(self, member: Member, content: bytes | None) -> Wish:
        """What the queue is asked for; None: to link the old file, which keeps its time."""
        folder, _, name = member.path[self._strip :].rpartition("/")
        return (
            folder,
            name,
            member.mode,
            member.size,
            _time(member, is_same=content is None),
            content,
        )

    def link(self, member: Member) -> bool:
        """Link the old release's file, if it still is what its index says."""
        folder, _, name = member.path[self._strip :].rpartition("/")
        return self.queue.link(folder, name, name, _wanted(member))

    def replace_by_link(self, member: Member) -> bool:
        """The same for a file that was written before it was known to be the old one."""
        path, beside = member.path[self._strip :], f".{member.pos}.linked"
        folder, _, name = path.rpartition("/")
        if not self.queue.link(folder, name, beside, _wanted(member)):
            return False
        self._tree.rename(posixpath.join(folder, beside), path)
        return True


class _Small(NamedTuple):
    """A file that was read in one piece.

    raw: digest of the packed bytes; head, whole: see index.py.
    """

    member: Member
    packed: bytes
    raw: bytes
    is_same: bool
    head: int | None
    whole: bytes | None


class _Batch(NamedTuple):
    """Files to make; contents: of those that are not the same as before, once inflated."""

    known: Stretch
    files: list[_Small]
    contents: Callable[[], list[bytes]]


class _Making(NamedTuple):
    """Files that the queue was asked for: the known ones, then the others."""

    wishes: list[Wish]
    known: Stretch
    files: list[_Small]


class _Writer:
    """Reads content, decides what is the same as before, and writes down what was made."""

    def __init__(self, work: Work, files: _Files, pool: ThreadPoolExecutor) -> None:
        self._work = work
        self._files = files
        self._pool = pool
        self._content = work.batches.content
        self._read: _Batch | None = None
        self._making: deque[_Making] = deque()
        self.linked = 0

    def write_batch(self) -> bool:
        """Read a batch, and make the files of the one before; False when nothing is left."""
        given = self._work.batches.take()
        before, self._read = self._read, self._read_batch(given)
        if before:
            self._make_batch(before)
        return not given.is_empty

    def _read_batch(self, given: Batch) -> _Batch:
        """Read the small files, and have them inflated; big ones are made at once."""
        files = []
        for member in given.files:
            if max(member.size, member.packed) > SMALL_BYTES:
                time, digest, raw = self._make_big(member)
                raw_of_zip = raw if self._content.is_zip else None
                self._work.draft.note_written([(member.pos, time, digest, raw_of_zip, None, None)])
                continue
            files.append(self._read_small(member))
        inflate = functools.partial(self._inflate, files)
        if self._content.is_zip:
            return _Batch(given.known, files, self._pool.submit(inflate).result)
        return _Batch(given.known, files, inflate)

    def _read_small(self, member: Member) -> _Small:
        packed = self._content.read(member)
        whole = hashlib.sha256(packed)
        raw = whole.digest()
        is_same = _is_same(member, raw)
        headers = self._content.headers(member)
        if not headers:
            return _Small(member, packed, raw, is_same, None, None)
        tar_reader.feed_headers(whole.update, headers)
        return _Small(member, packed, raw, is_same, len(headers), whole.digest())

    def _inflate(self, files: list[_Small]) -> list[bytes]:
        return [
            self._content.unpacked(file.member, file.packed) for file in files if not file.is_same
        ]

    def _make_batch(self, batch: _Batch) -> None:
        contents = iter(batch.contents())
        wishes, rows = [*batch.known.wishes], []
        is_zip = self._content.is_zip
        for member, packed, raw, is_same, head, whole in batch.files:
            content, digest = None, member.old_digest if is_same else None
            if digest is None:
                content = next(contents)
                digest = raw if content is packed else hashlib.sha256(content).digest()
            wishes.append(self._files.wish(member, content))
            time = _time(member, is_same=content is None)
            rows.append((member.pos, time, digest, raw if is_zip else None, head, whole))
        self._files.queue.put(wishes)
        self._making.append(_Making(wishes, batch.known, batch.files))
        self._work.draft.note_written(rows)
        self.settle(leave=_MAKING)
        self._note_done(sum(wish[3] for wish in wishes))

    def settle(self, *, leave: int) -> None:
        """See that all batches are made but the last ones; what the queue could not do is done."""
        while len(self._making) > leave:
            making = self._making.popleft()
            failed = self._files.queue.take()
            self.linked += len(making.known.wishes) + sum(file.is_same for file in making.files)
            for number in failed:
                content = making.wishes[number][-1]
                if content is None:
                    self.linked -= 1
                    content = self._content_again(making, number)
                self._files.make(making.wishes[number], (content,))

    def _content_again(self, making: _Making, number: int) -> bytes:
        """The content of a file that could not be linked."""
        known = making.known
        if number < len(known.wishes):
            return self._content.unpacked(known.member(number), known.contents[number])
        file = making.files[number - len(known.wishes)]
        return self._content.unpacked(file.member, file.packed)

    def _make_big(self, member: Member) -> tuple[int, bytes, bytes]:
        """Make or link a file in pieces; its time, and the digests of content and packed bytes."""
        if member.old_digest and self._content.rereads:
            whole = hashlib.sha256()
            for piece in self._content.packed_pieces(member):
                whole.update(piece)
                self._work.cancel.check()
            if _is_same(member, whole.digest()) and self._files.link(member):
                self.linked += 1
                self._note_done(member.size)
                return _time(member, is_same=True), member.old_digest, whole.digest()
        packed, content = hashlib.sha256(), hashlib.sha256()
        with contextlib.closing(self._pieces(member, packed.update, content.update)) as pieces:
            self._files.make(self._files.wish(member, b""), pieces)
        digest = content.digest()
        is_linked = digest == member.old_digest and self._files.replace_by_link(member)
        self.linked += is_linked
        raw = digest if member.method == STORED else packed.digest()
        return _time(member, is_same=is_linked), digest, raw

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

    def _note_done(self, size: int) -> None:
        """After every batch and every piece of a big file: how far it is, and may it go on."""
        self._work.batches.note_done(size)
        self._work.progress(*self._work.batches.progress())
        self._work.cancel.check()
        self._work.space.check()


def _time(member: Member, *, is_same: bool) -> int:
    """The mtime_ns of a file: that of the old release's where the content is the same."""
    return member.old_mtime_ns if is_same and member.old_mtime_ns is not None else member.mtime_ns


def _wanted(member: Member) -> tuple[int, int, int]:
    """What the old file has to be, to be linked."""
    return member.mode, member.size, _time(member, is_same=True)


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
