"""Copy one file of the release, with everything that is wanted of the copy."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import NamedTuple

from agent.files import acl
from agent.model.errors import AgentError, Code
from agent.system.cancel import Cancel

_PIECE_BYTES = 2**26
_BUFFER_BYTES = 2**20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# what copy_file_range answers where it cannot; then the bytes go through us
_NO_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Wanted(NamedTuple):
    """How a file is to be. acl: as the kernel keeps it."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    digest: bytes
    acl: bytes | None = None


def is_trusted(status: os.stat_result, size: int, mtime_ns: int) -> bool:
    """Whether a file of the release is as it was unpacked, and nobody else could have changed it.

    A target may be a hard link of it: a hook's `chown -R` then gives it to a service's user, who
    can write it and set its times back. Such a file is hashed before it is used again.
    """
    return (
        status.st_mtime_ns == mtime_ns
        and status.st_size == size
        and status.st_uid == os.geteuid()
        and stat.S_ISREG(status.st_mode)
        and status.st_mode & 0o022 == 0
    )


def copy_file(
    source: tuple[int, str], target: tuple[int, str], wanted: Wanted, cancel: Cancel
) -> None:
    """Copy source to target (folder and name), a new file with everything that is wanted of it.

    Reflinked where the file system can. Raises AgentError (RELEASE_DAMAGED), OSError.
    """
    reading = os.open(source[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source[0])
    try:
        writing = _open_new(target)
        try:
            if is_trusted(os.fstat(reading), wanted.size, wanted.mtime_ns):
                _copy_range(reading, writing, wanted.size, cancel)
            else:
                _copy_hashed(reading, writing, wanted, cancel)
            set_owner_and_mode(writing, wanted.mode, wanted.uid, wanted.gid)
            acl.set_acls(writing, wanted.acl, None)
            os.utime(writing, ns=(wanted.mtime_ns, wanted.mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def set_owner_and_mode(descriptor: int, mode: int | None, uid: int | None, gid: int | None) -> None:
    """Set what is wanted. The owner first: changing it takes set-id bits away."""
    if uid is not None or gid is not None:
        os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    if mode is not None:
        os.fchmod(descriptor, mode)


def _open_new(target: tuple[int, str]) -> int:
    with contextlib.suppress(FileExistsError):
        return os.open(target[1], _NEW, 0o600, dir_fd=target[0])
    os.unlink(target[1], dir_fd=target[0])  # of a copy that was interrupted
    return os.open(target[1], _NEW, 0o600, dir_fd=target[0])


def _copy_range(reading: int, writing: int, size: int, cancel: Cancel) -> None:
    left = size
    while left:
        cancel.check()
        try:
            copied = os.copy_file_range(reading, writing, min(left, _PIECE_BYTES))
        except OSError as error:
            if error.errno not in _NO_RANGE or left != size:
                raise
            copied = 0
        if copied == 0:
            break
        left -= copied
    while left and (piece := os.read(reading, _BUFFER_BYTES)):
        cancel.check()
        _write(writing, piece)
        left -= len(piece)


def _copy_hashed(reading: int, writing: int, wanted: Wanted, cancel: Cancel) -> None:
    digest = hashlib.sha256()
    while piece := os.read(reading, _BUFFER_BYTES):
        cancel.check()
        digest.update(piece)
        _write(writing, piece)
    if digest.digest() != wanted.digest:
        raise AgentError(
            f"cannot install {wanted.path}: its file in the release is not the bundle's any more",
            code=Code.RELEASE_DAMAGED,
            remedy="Run: agentctl retry",
        )


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
