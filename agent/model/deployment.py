"""Revisions, deployments and their steps: the words that state, API and CLI share."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum

_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U


class StepName(StrEnum):
    """The rows of the lifecycle table, in order. The values are stored: never change one."""

    FETCH = "fetch"
    VERIFY = "verify"
    UNPACK = "unpack"
    PLAN = "plan"
    BLOCK_TRAFFIC = "block-traffic"
    STOP = "stop"
    BEFORE_INSTALL = "before-install"
    INSTALL = "install"
    AFTER_INSTALL = "after-install"
    START = "start"
    VALIDATE = "validate"
    ALLOW_TRAFFIC = "allow-traffic"
    COMMIT = "commit"
    REPORT = "report"
    PRUNE = "prune"


class Status(StrEnum):
    """Status of a deployment or of one of its steps."""

    PENDING = "pending"
    DOING = "doing"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"
    FAILED = "failed"


class Outcome(StrEnum):
    """How a deployment ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # nothing on the host was touched
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    ABORTED = "aborted"
    INCONSISTENT = "inconsistent"


class Trigger(StrEnum):
    """Who asked for a deployment."""

    SOURCE = "source"
    OPERATOR = "operator"
    RETRY = "retry"
    ROLLBACK = "rollback"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Revision:
    """What to deploy.

    version: from release.json, else from the source ("1.214").
    bundle:  where it lies, as the source names it (a path or URL).
    digest:  sha256 of the bundle in hex; "" until it was fetched.
    identity: what the source tells apart cheaply without reading the bundle; the same
        identity is the same revision, and a failed identity is not tried again by itself.
    serial:  grows with every newer revision of one source; 0 where the source has no order.
    size:    bytes of the bundle as its manifest says, 0 where it has none.
    commit:  what it was built from, "" where that is not known.
    signed_by: the id of the key whose signature was checked, "" for an unsigned one.
    """

    application: str
    group: str
    version: str
    bundle: str
    digest: str = ""
    identity: str = ""
    serial: int = 0
    size: int = 0
    commit: str = ""
    signed_by: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that explains itself: cause code, place, evidence, next command."""

    code: str
    where: str
    message: str
    evidence: tuple[str, ...]
    next: str


@dataclass(frozen=True, slots=True)
class Step:
    """One row's record within one deployment. Times are Unix seconds, durations seconds."""

    name: StepName
    status: Status
    started_at: float
    seconds: float = 0.0
    undo_seconds: float = 0.0
    note: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One attempt to bring one revision onto this host.

    release: the name of the release folder; a rollback uses that of the revision it returns to.
    starts:  how often work on it began (1 without a crash).
    """

    id: str
    revision: Revision
    release: str
    trigger: Trigger
    requested_by: str
    status: Status
    created_at: float
    started_at: float = 0.0
    ended_at: float = 0.0
    starts: int = 0
    step: StepName | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    previous_version: str = ""


@dataclass(frozen=True, slots=True)
class Current:
    """A committed revision of an application on this host."""

    revision: Revision
    release: str
    deployment_id: str
    committed_at: float


def new_deployment_id() -> str:
    """A fresh id such as d-7K3M9QX2P: short enough to type, unique over a fleet in practice."""
    return "d-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(9))
