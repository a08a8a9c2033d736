"""What a step is given, and what it may give back."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from agent.environment import files as environment_files
from agent.files import planfile, restore
from agent.formats.appspec import load_appspec
from agent.hooks.runner import HookRunner
from agent.hooks.scene import BundleFacts, HookScene
from agent.model.appspec import AppSpec, LifecycleEvent, Service
from agent.model.deployment import Deployment, Revision, Status, StepName
from agent.model.errors import AgentError, Interrupted
from agent.model.installed import InstalledFile
from agent.model.release import Release
from agent.model.settings import Settings, StopFailure
from agent.sources.bundles import Bundles
from agent.system import process
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient
from agent.system.systemd import Systemd
from agent.system.threads import run_blocking
from agent.units import control, unitfiles
from agent.units.control import UnitControl

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul
    from agent.traffic.control import Traffic


class InstalledFiles(Protocol):
    """The committed files, read only."""

    def attach(self, connection: sqlite3.Connection) -> None:
        """Make them readable as committed.installed on a connection opened with uri=True."""

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
class Keep:
    """What prune leaves on the disk: names of releases and bundles, ids of deployments."""

    releases: frozenset[str]
    bundles: frozenset[str]
    deployments: frozenset[str]


@dataclass(frozen=True, slots=True)
class Context:
    """One deployment's view of the world.

    current:  what is committed on this host, None before the first deployment.
    work_dir: deployments/<id>: the plan and what is kept for undo lie here.
    progress: called with (done, total) in bytes or files, from any thread.
    cancel:   blocking work checks it; set by abort, deadline and shutdown.
    quarantined: digest to cause, of this application on this host.
    keep:     what prune must leave; blocks.
    bundles:  fetches what lies in a store.
    report:   tells the source how the deployment ended.
    systemd:  None where the host has none, or the agent is not root.
    pass_name: the row that runs and the way through it, such as "start" or "undo start".
    consul:   None where the configuration names none.
    drained:  why a person keeps the application out of Consul's traffic, "" if nobody does.
    steps:    how the rows stand that were begun, when this one begins.
    unpacked: the names of releases that this way through the table has unpacked.
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
    http: HttpClient
    quarantined: Mapping[str, str]
    keep: Callable[[], Keep]
    bundles: Bundles
    report: Callable[[Deployment], Awaitable[None]]
    systemd: Systemd | None
    pass_name: str
    consul: Consul | None = None
    drained: str = ""
    steps: Mapping[StepName, Status] = field(default_factory=dict)
    unpacked: set[str] = field(default_factory=set)

    async def appspec(self, release: Release) -> AppSpec:
        """The appspec of a release; raises AgentError."""
        appspec, _ = await run_blocking(self.cancel, load_appspec, release.tree)
        return appspec

    @property
    def units(self) -> UnitControl | None:
        """The units of this deployment; None where there is no systemd."""
        if self.systemd is None:
            return None
        return UnitControl(self.systemd, self.work_dir, self.log)

    @property
    def traffic(self) -> Traffic | None:
        """The services of this deployment in Consul; None where Consul is not used."""
        if self.consul is None:
            return None
        from agent.traffic.control import Traffic  # imported here: see daemon

        return Traffic(
            self.consul,
            self.deployment,
            work_dir=self.work_dir,
            log=self.log,
            cancel=self.cancel,
            drained=self.drained,
        )

    @property
    def plan_path(self) -> Path:
        """The plan of this deployment; there is none before its step."""
        return self.work_dir / planfile.NAME

    async def services(self, release: Release) -> dict[str, Service]:
        """A release's services that name a unit, by unit, in the appspec's order."""
        appspec = await self.appspec(release)
        return {each.unit: each for each in control.with_units(appspec)}

    async def old_services(self) -> dict[str, Service]:
        """Those of the revision that is replaced; none where its appspec cannot be read.

        It raises AgentError then where `stop_failure` says so.
        """
        if self.current is None:
            return {}
        is_strict = self.settings.stop_failure is StopFailure.FAIL
        return await self._services_if_known(self.current, is_strict=is_strict)

    async def all_services(self) -> dict[str, Service]:
        """Those of both revisions, for an undo: it goes on without what cannot be read."""
        found = await self._services_if_known(self.release, is_strict=False)
        if self.current is not None:
            found |= await self._services_if_known(self.current, is_strict=False)
        return found

    async def _services_if_known(self, release: Release, *, is_strict: bool) -> dict[str, Service]:
        try:
            return await self.services(release)
        except Interrupted:
            raise
        except AgentError as error:
            if is_strict:
                raise
            version = release.revision.version
            self.log.line(f"warning: the units of {version} are not known: {error.message}")
            return {}

    async def run_event(self, event: LifecycleEvent, release: Release) -> None:
        """Run the hooks that `release` has for an event; raises AgentError."""
        appspec = await self.appspec(release)
        hooks = appspec.hooks.get(event, ())
        if not hooks:
            return
        revision = self.deployment.revision
        scene = HookScene(
            deployment_id=self.deployment.id,
            application=revision.application,
            group=revision.group,
            group_id=revision.group,
            tree=release.tree,
            version=revision.version,
            previous_version=self.deployment.previous_version,
            bundle=_bundle_facts(revision),
            log=self.log,
            cancel=self.cancel,
            pass_name=self.pass_name,
        )
        await self.hooks.run_event(event, hooks, scene)

    async def run_old_event(self, event: LifecycleEvent, current: Release) -> str:
        """Run the hooks of the revision that is replaced; "" or what failed in them.

        What the old revision cannot do must not keep a newer one from coming (`stop_failure`).
        """
        try:
            await self.run_event(event, current)
        except Interrupted:
            raise
        except AgentError as error:
            if self.settings.stop_failure is StopFailure.FAIL or self.cancel.is_set():
                raise
            note = (
                f"{event} of the old revision {current.revision.version} failed, not of the new"
                f" one: {error.message}; going on, as stop_failure is fallback"
            )
            for line in (f"warning: {note}", *error.details):
                self.log.line(line)
            return note
        return ""

    async def put_files_back(self) -> None:
        """Put back what was installed, and what hooks took of the current revision's files.

        systemd reads its unit files again where they changed. Does nothing where there is no plan,
        and nothing twice; raises AgentError.
        """
        units = self.units
        changed = await run_blocking(self.cancel, self._put_files_back)
        if units is not None:
            await units.reload_after_undo(changed=changed)

    def _put_files_back(self) -> bool:
        """Whether unit files are other ones now."""
        environment_files.undo(self.work_dir)
        files = unitfiles.find_unit_files(self.plan_path)
        before = unitfiles.look_at(file.path for file in files)
        restore.undo(self.work_dir, capture=process.capture_blocking, cancel=self.cancel)
        return unitfiles.look_at(before) != before


def _bundle_facts(revision: Revision) -> BundleFacts:
    """What AWS's hooks are told of a bundle in S3."""
    parts = urlsplit(revision.bundle)
    if parts.scheme != "s3":
        return BundleFacts(commit=revision.commit)
    return BundleFacts(bucket=parts.netloc, key=parts.path.lstrip("/"), commit=revision.commit)
