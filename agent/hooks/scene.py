"""What hooks need to know of the deployment that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """Where the bundle came from, as far as it is known; "" is not passed on."""

    bucket: str = ""
    key: str = ""
    version: str = ""
    etag: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class HookScene:
    """One deployment, for its hooks.

    tree: the release that the scripts come from; their working directory.
    version, previous_version: of the revision that is deployed, and of the one before or "".
    pass_name: the row that runs them and the way through it, such as "start" or "undo start".
    """

    deployment_id: str
    application: str
    group: str
    group_id: str
    tree: Path
    version: str
    previous_version: str
    bundle: BundleFacts
    log: DeploymentLog
    cancel: Cancel
    pass_name: str
