"""What kind of bundle a path is, told by its first bytes and never by its name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from agent.archive.refusals import damaged, refused_bundle
from agent.model.errors import AgentError, Code, from_os_error

_HEAD_BYTES = 512  # a tar's first header
_SUPPORTED = "Build the bundle as zip, tar or tar.gz, or name a folder."

_FOREIGN = (
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"\x1f\x9d", "a file of compress(1)"),
    (b"LZIP", "an lzip file"),
    (b"!<arch>\n", "a Debian package or ar archive"),
    (b"070701", "a cpio archive"),
    (b"PK\x07\x08", "one part of a zip in several parts"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"#!", "a script"),
)


class Kind(StrEnum):
    """A kind of bundle. The values are the names that AWS gives them."""

    ZIP = "zip"
    TAR = "tar"
    TGZ = "tgz"
    DIRECTORY = "directory"


def detect(path: Path) -> Kind:
    """The kind of the bundle at `path`.

    Raises AgentError: BUNDLE_MISSING, BUNDLE_DAMAGED for an empty file or a saved web page,
    BUNDLE_REFUSED for what is no archive of ours; it says what the file is.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return Kind.DIRECTORY
    except OSError as error:
        raise _not_readable(error, path) from error
    with open_bundle(path) as fd:
        return detect_open(fd)


def detect_open(fd: int) -> Kind:
    """The kind of the archive that `fd` is open on; raises as detect()."""
    head = os.pread(fd, _HEAD_BYTES, 0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06")):
        return Kind.ZIP
    if head.startswith(b"\x1f\x8b"):
        return Kind.TGZ
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return Kind.TAR
    raise _unknown(head)


@contextlib.contextmanager
def open_bundle(path: Path) -> Iterator[int]:
    """A descriptor on the regular file at `path`; never waits on a fifo, never opens a device."""
    try:
        mode = path.stat().st_mode  # before the open: opening a device may already do something
        if not stat.S_ISREG(mode):
            raise refused_bundle(f"{path} is {_kind_of_file(mode)}, not a file", _SUPPORTED)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_readable(error, path) from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise refused_bundle(f"{path} is {_kind_of_file(mode)}, not a file", _SUPPORTED)
        yield fd
    finally:
        os.close(fd)


def _kind_of_file(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a fifo",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(mode), "something else")


def _is_old_tar(head: bytes) -> bool:
    """Whether it is a header from before ustar: no magic, but the checksum is right."""
    if len(head) < _HEAD_BYTES or not head[0]:
        return False
    digits = head[148:156].strip(b" \0")
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        return False
    return sum(head) - sum(head[148:156]) + 8 * ord(" ") == int(digits, 8)


def _unknown(head: bytes) -> AgentError:
    """The error for a file that begins with none of our magic numbers."""
    if not head:
        return damaged("the file is empty: is it still being copied?")
    if not head.strip(b"\0"):
        return damaged("the file begins with zeros only: is it still being copied?")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return damaged(
            "it is a web page: whoever fetched it saved an error page or a login form",
            "Open the bundle's address with curl -v, then publish the bundle itself.",
        )
    if text.startswith((b"<?xml", b"<error>")):
        return damaged(
            "it is an XML text, most likely a storage service's error message",
            "Read it with: head -c 500 FILE, then publish the bundle itself.",
        )
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return refused_bundle(f"it is {name}", _SUPPORTED)
    return refused_bundle("it is neither a zip nor a tar", _SUPPORTED)


def _not_readable(error: OSError, path: Path) -> AgentError:
    code = Code.BUNDLE_MISSING if isinstance(error, FileNotFoundError) else Code.BUNDLE_REFUSED
    return from_os_error(error, f"read the bundle {path}", code=code)
