"""What the agent says to Consul and is told by it. Durations are seconds, texts Consul's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CheckStatus(StrEnum):
    """Of one check, and of a service: the worst of its checks."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"  # of a service only: a check says it as critical


class SessionBehavior(StrEnum):
    """What becomes of the keys that a session holds when it ends."""

    RELEASE = "release"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """One check of a registration: http (a URL), tcp ("host:port") or ttl_seconds is given.

    status: until the check has run. id: one for each check of a host; "" is service:<service>:1, …
    successes, failures: how many in a row change the status (SuccessBeforePassing,
    FailuresBeforeCritical).
    deregister_after_seconds: critical for so long and Consul forgets the service; 0 is never.
    """

    id: str = ""
    name: str = ""
    http: str = ""
    tcp: str = ""
    ttl_seconds: float = 0.0
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    status: CheckStatus = CheckStatus.CRITICAL
    notes: str = ""
    method: str = "GET"
    header: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skips_tls_verification: bool = False
    successes: int = 0
    failures: int = 0
    deregister_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceRegistration:
    """A service as the local agent is told of it. address "": the host's own."""

    id: str
    name: str
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[ServiceCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """One check as Consul sees it. output: what it said last."""

    id: str
    name: str
    status: CheckStatus
    output: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One registered service. status: the worst of its checks; without checks it passes.

    host: Consul's name of the host. maintenance: the reason it was taken out of traffic for, which
    may be ""; None while it is in traffic.
    """

    id: str
    name: str
    host: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[CheckHealth, ...] = ()
    status: CheckStatus = CheckStatus.PASSING
    maintenance: str | None = None


@dataclass(frozen=True, slots=True)
class KvEntry:
    """One key. modify_index: for compare-and-set. session: who holds it as a lock, or "".

    lock_index: how often it was locked; with key and session it proves that a lock is held.
    """

    key: str
    value: bytes
    modify_index: int
    lock_index: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True)
class KvSnapshot:
    """All values below a prefix, by key without the prefix, at one index of Consul's.

    Keys that end in "/" are folders that some tools make, and left out.
    """

    prefix: str
    index: int
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class LocalAgent:
    """The Consul agent that is talked to.

    keeps: whether it has a data_dir, so that what it was told outlives a restart; None where it
    does not say.
    """

    host: str
    datacenter: str
    version: str
    is_server: bool
    keeps: bool | None = None


@dataclass(frozen=True, slots=True)
class Right:
    """What a policy may allow, as its rules have it: service "web" { policy = "write" }."""

    resource: str
    name: str
    access: str
