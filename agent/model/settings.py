"""The agent's configuration, as a frozen value. Sizes are bytes, durations seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class StopFailure(StrEnum):
    """What a failing ApplicationStop hook of the old revision does."""

    FALLBACK = "fallback"
    FAIL = "fail"


class Leftover(StrEnum):
    """What happens to processes that a successful hook leaves behind."""

    WARN = "warn"
    KILL = "kill"


class Sandbox(StrEnum):
    """What hooks may change on the host: docs/hooks.md."""

    NONE = "none"
    SYSTEM = "system"
    STRICT = "strict"


class SourceType(StrEnum):
    """Where revisions may come from."""

    DIRECTORY = "directory"
    HTTP = "http"
    S3 = "s3"


POINTER_POLL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source. type directory: path. http: url, token_file. s3: url and what follows it.

    application: "" (directory only) means that each sub-folder of path is an application.
    group: "" means that an instance tag names it.
    """

    type: SourceType
    path: str = ""
    application: str = ""
    group: str = ""
    poll_seconds: float = POINTER_POLL_SECONDS
    url: str = ""
    token_file: str = ""
    region: str = ""
    endpoint: str = ""
    path_style: bool = False
    profile: str = ""
    role_arn: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may cost. Counted from real bytes, not from an archive's headers."""

    bundle_bytes: int = 20 * 2**30
    unpacked_bytes: int = 40 * 2**30
    members: int = 1_000_000
    depth: int = 64
    ratio: int = 500  # unpacked to packed, looked at from 64 MiB of unpacked bytes on
    free_bytes: int = 64 * 2**20  # left free on every file system that is written to
    free_inodes: int = 1000


@dataclass(frozen=True, slots=True)
class HookSettings:
    """grace_seconds: between TERM and KILL. log_bytes: kept per hook, head and tail together.

    memory_max_bytes, processes_max, cpu_weight: 0 leaves it to systemd's own defaults.
    """

    grace_seconds: float = 10.0
    leftover: Leftover = Leftover.WARN
    log_bytes: int = 10 * 2**20
    retry_seconds: float = 5.0  # pause before a hook that exited 75 runs again
    memory_max_bytes: int = 0
    processes_max: int = 0
    cpu_weight: int = 0
    sandbox: Sandbox = Sandbox.NONE


@dataclass(frozen=True, slots=True)
class Retention:
    """What prune keeps, beside current and previous which are always kept."""

    releases: int = 3
    bundles: int = 5
    deployments: int = 100
    max_bytes: int = 0  # 0: no limit by size
    max_age_seconds: float = 0.0  # 0: no limit by age


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """The local Consul agent. address: http://, https:// or unix://. Files: "" for none.

    token_file: a path, or the name of a credential of the unit (LoadCredential=).
    datacenter: of keys and sessions; "" is the agent's own. prefix: of the keys that are ours.
    services_dir: where Consul reads its configuration, with services that bundles install there.
    """

    address: str = "http://127.0.0.1:8500"
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    datacenter: str = ""
    prefix: str = "deploy"
    services_dir: str = "/etc/consul.d"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that agent.yaml may say, with its defaults."""

    state_dir: Path
    run_dir: Path
    keys_dir: Path = Path("/etc/deploy-agent/keys.d")
    sources: tuple[SourceSettings, ...] = ()
    poll_seconds: float = 2.0  # of folders
    group: str = "default"
    group_tag: str = ""  # the instance tag that names the group; "": the group above
    imds_without_token: bool = (
        False  # whether the metadata service may be asked without a session token
    )
    api_group: str = "deploy-agent"
    stop_failure: StopFailure = StopFailure.FALLBACK
    starts: int = 5
    step_timeouts: dict[str, float] = field(default_factory=dict)  # by step name
    shutdown_seconds: float = 20.0
    limits: Limits = Limits()
    hooks: HookSettings = HookSettings()
    retention: Retention = Retention()
    consul: ConsulSettings | None = None
