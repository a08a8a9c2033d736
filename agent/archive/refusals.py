"""The words in which a bundle is refused: the entry, the cause, and what to do about it."""

from __future__ import annotations

import sqlite3

from agent.model.errors import AgentError, Code, TransientError

REBUILD = "Build the bundle again without it, then deploy that bundle."
_COPY_AGAIN = "Copy or build the bundle again, then run: agentctl retry"
_SHOWN_CHARS = 100


def shown(name: str | bytes) -> str:
    """A name as it is safe to print: quoted, escaped, and shortened in its middle."""
    quoted = repr(name) if isinstance(name, bytes) or name.isprintable() else ascii(name)
    if len(quoted) <= _SHOWN_CHARS:
        return quoted
    return f"{quoted[:60]}...{quoted[-30:]}"


def refused(entry: str | bytes, cause: str, remedy: str = REBUILD) -> AgentError:
    """The error for an entry that breaks a rule; `cause` goes on from the entry's name."""
    return AgentError(
        f"cannot unpack the bundle: entry {shown(entry)} {cause}",
        code=Code.BUNDLE_REFUSED,
        remedy=remedy,
    )


def refused_bundle(cause: str, remedy: str) -> AgentError:
    """The error for a bundle that breaks a rule as a whole."""
    return AgentError(f"cannot unpack the bundle: {cause}", code=Code.BUNDLE_REFUSED, remedy=remedy)


def damaged(cause: str, remedy: str = _COPY_AGAIN) -> AgentError:
    """The error for a bundle that is not whole, or not what its own checksums say."""
    return AgentError(f"cannot unpack the bundle: {cause}", code=Code.BUNDLE_DAMAGED, remedy=remedy)


def disk_full(needed: str, there: str, cause: str) -> TransientError:
    """The error for a file system that has too little of something left."""
    return TransientError(
        f"cannot unpack the bundle: {cause}: {needed} needed, {there} free",
        code=Code.DISK_FULL,
        remedy="Free space on that file system, then run: agentctl retry",
    )


def from_sqlite_error(error: sqlite3.Error, doing: str) -> AgentError:
    """Translate what SQLite says of an index: a full disk, or a damaged file."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return TransientError(
            f"cannot {doing}: the file system is full",
            code=Code.DISK_FULL,
            remedy="Free space on that file system, then run: agentctl retry",
        )
    return AgentError(
        f"cannot {doing}: {error}",
        code=Code.RELEASE_DAMAGED,
        remedy="Remove the release and its index, then run: agentctl retry",
    )
