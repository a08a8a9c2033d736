"""Copying a bundle from a path on this host, hashed on the way."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from agent.archive import kinds
from agent.archive.ahead import ahead
from agent.archive.refusals import refused_bundle
from agent.archive.tree import write_all
from agent.model.errors import AgentError, Code, TransientError, from_os_error
from agent.system.cancel import Cancel

_PIECE_BYTES = 1024 * 1024
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
# O_RDWR: a shared copy is read to be hashed
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Copied(NamedTuple):
    """sha256 in hex, and the size in bytes, of a bundle that was written."""

    sha256: str
    size: int


def copy_hashed(
    source: Path,
    target: Path,
    *,
    limit_bytes: int,
    cancel: Cancel,
    progress: Callable[[int, int], None],
) -> Copied:
    """Copy the file `source` to the new file `target` (mode 0600), in one pass.

    Where the file system can share blocks nothing is copied. The caller syncs. Raises AgentError:
    BUNDLE_MISSING, BUNDLE_REFUSED (too big, no file), DISK_FULL; TransientError (BUNDLE_CHANGED)
    if the source is written to or replaced meanwhile; Interrupted. `target` is removed then.
    """
    with kinds.open_bundle(source) as fd:
        before = identity(os.fstat(fd))
        size = os.fstat(fd).st_size
        if size > limit_bytes:
            raise _too_big(limit_bytes)
        digest, copied = hashlib.sha256(), 0
        try:
            with new_file(target) as copy:
                is_shared = _clone(fd, copy)
                pieces = _hashed(copy if is_shared else fd, limit_bytes, digest.update)
                with contextlib.closing(ahead(pieces)) as read_ahead:
                    for piece in read_ahead:
                        cancel.check()
                        if not is_shared:
                            write_all(copy, piece)
                        copied += len(piece)
                        progress(copied, size)
                if not before == identity(os.fstat(fd)) == identity(source.stat()):
                    raise changed(source)
        except FileNotFoundError as error:
            raise changed(source) from error
        except OSError as error:
            raise from_os_error(error, f"copy {source} to {target}", code=Code.INTERNAL) from error
    return Copied(digest.hexdigest(), copied)


def digest_of(path: Path, cancel: Cancel) -> str:
    """The sha256 of a file in hex. Raises OSError, Interrupted."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            cancel.check()
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A descriptor on a new file (mode 0600), which is removed again if the block fails."""
    try:
        fd = os.open(path, _CREATE, 0o600)
    except OSError as error:
        raise from_os_error(error, f"make the file {path}", code=Code.INTERNAL) from error
    try:
        yield fd
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was replaced or written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def changed(source: Path) -> TransientError:
    """The error for a bundle that is still being written."""
    return TransientError(
        f"cannot copy the bundle {source}: it changed while it was read",
        code=Code.BUNDLE_CHANGED,
        remedy="Write bundles under another name, then rename them into place.",
    )


def _hashed(fd: int, limit_bytes: int, feed: Callable[[bytes], object]) -> Iterator[bytes]:
    """The pieces of a file from its start, each given to `feed` before."""
    at = 0
    while piece := os.pread(fd, _PIECE_BYTES, at):
        at += len(piece)
        if at > limit_bytes:
            raise _too_big(limit_bytes)
        feed(piece)
        yield piece


def _clone(source: int, target: int) -> bool:
    """Share the source's blocks (btrfs, xfs); False where that cannot be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _too_big(limit_bytes: int) -> AgentError:
    return refused_bundle(
        f"it is bigger than {limit_bytes} bytes",
        "Raise limits.bundle in agent.yaml if this bundle is meant to be so.",
    )
