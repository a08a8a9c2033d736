"""The appspec of a revision, parsed: AWS's EC2 sections and our `services:`.

Sources of the rules: AWS CodeDeploy user guide, "AppSpec file structure" pages
(files, permissions, hooks, file_exists_behavior); docs/appspec.md for `services:`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class LifecycleEvent(StrEnum):
    """The named moments of AWS CodeDeploy, in their order."""

    BEFORE_BLOCK_TRAFFIC = "BeforeBlockTraffic"
    AFTER_BLOCK_TRAFFIC = "AfterBlockTraffic"
    APPLICATION_STOP = "ApplicationStop"
    BEFORE_INSTALL = "BeforeInstall"
    AFTER_INSTALL = "AfterInstall"
    APPLICATION_START = "ApplicationStart"
    VALIDATE_SERVICE = "ValidateService"
    BEFORE_ALLOW_TRAFFIC = "BeforeAllowTraffic"
    AFTER_ALLOW_TRAFFIC = "AfterAllowTraffic"


class FileExistsBehavior(StrEnum):
    """What to do with a file that is there and is not this application's."""

    DISALLOW = "DISALLOW"
    OVERWRITE = "OVERWRITE"
    RETAIN = "RETAIN"


class Match(StrEnum):
    """How the version that the service reports is compared with the revision's."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


class ServedBy(StrEnum):
    """Whose answer counts: only that of the entry's own unit, or anybody's (a proxy's)."""

    UNIT = "unit"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Hook:
    """A script attached to a lifecycle event. location: relative to the release."""

    event: LifecycleEvent
    location: str
    timeout_seconds: float = 3600.0
    runas: str = ""
    sudo: bool = False


@dataclass(frozen=True, slots=True)
class FileMapping:
    """source: relative to the release, "" for all of it; destination: an absolute folder."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One entry: kind is user, group, mask or other; perms such as "r-x"."""

    default: bool
    kind: str
    name: str
    perms: str


@dataclass(frozen=True, slots=True)
class Permission:
    """Applies only to what this deployment installs. mode: None leaves the bundle's."""

    object: str
    pattern: str = "**"
    excludes: tuple[str, ...] = ()
    types: tuple[str, ...] = ("file", "directory")
    owner: str = ""
    group: str = ""
    mode: int | None = None
    acls: tuple[AclEntry, ...] = ()
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StatusCheck:
    """The status endpoint that proves a revision. version: JSON pointer, "" switches it off."""

    url: str
    version: str = "/version"
    match: Match = Match.EXACT
    served_by: ServedBy = ServedBy.UNIT
    healthy: tuple[tuple[str, str], ...] = ()
    within_seconds: float = 60.0
    stable_for_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class ConsulCheck:
    """How Consul looks after a service: one of http, tcp and ttl_seconds is given.

    http: a URL, or a path below the service's own address. tcp: "host:port".
    ttl_seconds: the service tells Consul itself how it is, at least so often.
    """

    http: str = ""
    tcp: str = ""
    ttl_seconds: float = 0.0
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class ConsulService:
    """What a service is registered as in Consul. address "": the host's own. port 0: none.

    drain_seconds: from the end of its traffic to its stop. within_seconds: how long its check may
    take to pass.
    """

    name: str
    id: str
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    check: ConsulCheck | None = None
    drain_seconds: float = 5.0
    within_seconds: float = 60.0


class OnChange(StrEnum):
    """What a service is told of a changed environment."""

    RESTART = "restart"
    RELOAD = "reload"
    SIGNAL = "signal"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A prefix of keys in Consul as an EnvironmentFile= of systemd.

    signal: its name without SIG, where on_change is SIGNAL. owner, group: "" for the agent's own.
    splay_seconds: a change is waited with for a random part of it. slots: so many hosts of the
    group may change at once, 0 for all.
    """

    prefix: str
    path: str
    on_change: OnChange = OnChange.RESTART
    signal: str = ""
    owner: str = ""
    group: str = ""
    mode: int = 0o600
    splay_seconds: float = 0.0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """An entry of `services:`."""

    unit: str = ""
    stop_timeout_seconds: float = 30.0
    start_timeout_seconds: float = 90.0
    status: StatusCheck | None = None
    consul: ConsulService | None = None
    environment: EnvironmentFile | None = None


@dataclass(frozen=True, slots=True)
class AppSpec:
    """A valid appspec. filename: its name in the release's root."""

    filename: str
    files: tuple[FileMapping, ...] = ()
    file_exists_behavior: FileExistsBehavior | None = None
    permissions: tuple[Permission, ...] = ()
    hooks: dict[LifecycleEvent, tuple[Hook, ...]] = field(default_factory=dict)
    services: tuple[Service, ...] = ()


class Severity(StrEnum):
    """error: the appspec is refused; warning: it is accepted, and this is worth knowing."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a text file. line and column count from 1; 0 where there is no place."""

    severity: Severity
    file: str
    line: int
    column: int
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        """file:line:column: severity: message (suggestion)."""
        return f"{self._place()}: {self.severity}: {self._text()}"

    def without_severity(self) -> str:
        """The same where the severity is said before it."""
        return f"{self._place()}: {self._text()}"

    def _place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def _text(self) -> str:
        return f"{self.message} ({self.suggestion})" if self.suggestion else self.message
