"""Errors that a user can act on: one message, its evidence, and what to do next.

AgentError            everything that is reported to a user
├── TransientError    may succeed when tried again; the poller tries again by itself
├── NotPermitted      the caller may not do this (API: 403)
├── NotFound          the thing named does not exist (API: 404)
├── Conflict          not in this state: held, quarantined, already past commit (API: 409)
└── Interrupted       work was told to stop between two of its pieces (abort, deadline, shutdown)
"""

from __future__ import annotations

import errno
from enum import StrEnum


class Code(StrEnum):
    """Stable cause codes: they are shown, stored, and matched by users' alerts."""

    BUNDLE_MISSING = "bundle-missing"
    BUNDLE_DAMAGED = "bundle-damaged"
    BUNDLE_REFUSED = "bundle-refused"
    BUNDLE_CHANGED = "bundle-changed"
    MANIFEST_REFUSED = "manifest-refused"
    APPSPEC_INVALID = "appspec-invalid"
    PLAN_REFUSED = "plan-refused"
    DISK_FULL = "disk-full"
    RELEASE_DAMAGED = "release-damaged"
    INSTALL_FAILED = "install-failed"
    HOOK_FAILED = "hook-failed"
    HOOK_TIMEOUT = "hook-timeout"
    HOOK_NOT_RUNNABLE = "hook-not-runnable"
    UNIT_FAILED = "unit-failed"
    STATUS_UNREACHABLE = "status-unreachable"
    STATUS_UNHEALTHY = "status-unhealthy"
    STATUS_FOREIGN = "status-foreign"
    VERSION_MISMATCH = "version-mismatch"
    STEP_TIMEOUT = "step-timeout"
    TOO_MANY_STARTS = "too-many-starts"
    AGENT_STOPPED = "agent-stopped"
    ABORTED = "aborted"
    QUARANTINED = "quarantined"
    HELD = "held"
    CONFIG_INVALID = "config-invalid"
    SOURCE_UNAVAILABLE = "source-unavailable"
    SOURCE_DENIED = "source-denied"
    CONSUL_UNREACHABLE = "consul-unreachable"
    CONSUL_DENIED = "consul-denied"
    CONSUL_REFUSED = "consul-refused"
    CONSUL_CRITICAL = "consul-critical"
    ENVIRONMENT_REFUSED = "environment-refused"
    STATE_DAMAGED = "state-damaged"
    STATE_TOO_NEW = "state-too-new"
    STATE_IN_USE = "state-in-use"
    NOT_PERMITTED = "not-permitted"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    BAD_REQUEST = "bad-request"
    AGENT_UNREACHABLE = "agent-unreachable"
    INTERNAL = "internal"


class AgentError(Exception):
    """A failure with its cause, evidence and remedy.

    message: "cannot <verb> <object>: <cause>", one line.
    details: evidence, a line each (last output lines, the list of conflicts).
    remedy:  an imperative sentence, ideally with the command to type, or "".
    where:   the place: a hook, a file, a URL; "" where the message says it already.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Code,
        details: tuple[str, ...] = (),
        remedy: str = "",
        where: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details
        self.remedy = remedy
        self.where = where

    @property
    def line(self) -> str:
        """Message and remedy, where there is one line for both."""
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class TransientError(AgentError):
    """May succeed when tried again later.

    retry_after: seconds that the other side wants to be left alone for (Retry-After); 0.0 where
    it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: Code,
        details: tuple[str, ...] = (),
        remedy: str = "",
        where: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message, code=code, details=details, remedy=remedy, where=where)
        self.retry_after = retry_after


class NotPermitted(AgentError):
    """The caller may not do this."""


class NotFound(AgentError):
    """The thing named does not exist."""


class Conflict(AgentError):
    """It cannot be done in the present state."""


class Interrupted(AgentError):
    """Work was told to stop between two of its pieces."""


def from_os_error(error: OSError, doing: str, *, code: Code, remedy: str = "") -> AgentError:
    """Translate an OSError met while `doing` ("write /srv/x") into our words.

    A full disk (ENOSPC, EDQUOT) gets its own code whatever the caller's code is.
    """
    cause = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransientError(
            f"cannot {doing}: {cause}",
            code=Code.DISK_FULL,
            remedy=remedy or "Free space on that file system, then run: agentctl retry",
        )
    return AgentError(f"cannot {doing}: {cause}", code=code, remedy=remedy)
