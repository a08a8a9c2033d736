"""What a step is given, and what it may give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.hooks.runner import HookRunner
from agent.model.deployment import Deployment, Revision
from agent.model.release import Release
from agent.model.settings import Settings
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A path that a committed revision of an application owns on this host."""

    path: str
    application: str
    kind: str  # file | dir | link
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    digest: bytes  # sha256 of the content; of the target for a link; b"" for a dir


class InstalledFiles(Protocol):
    """The committed files, read only."""

    def of(self, application: str) -> Iterator[InstalledFile]:
        """Every file of one application, ordered by path."""

    def owner(self, path: str) -> str | None:
        """The application that owns a path."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the runner saves of a step. revision: now that more is known of it."""

    note: str = ""
    revision: Revision | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """One deployment's view of the world.

    current:  what is committed on this host, None before the first deployment.
    work_dir: deployments/<id>: the plan and what is kept for undo lie here.
    progress: called with (done, total) in bytes or files, from any thread.
    cancel:   blocking work checks it; set by abort, deadline and shutdown.
    """

    deployment: Deployment
    settings: Settings
    release: Release
    current: Release | None
    work_dir: Path
    log: DeploymentLog
    hooks: HookRunner
    installed: InstalledFiles
    progress: Callable[[int, int], None]
    cancel: Cancel
