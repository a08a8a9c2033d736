"""What every deployment works with, and the view of it that one deployment's steps are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import retention
from agent.hooks.runner import HookRunner
from agent.lifecycle import AFTERWARDS, LIFECYCLE, RECONFIGURE, Row
from agent.model.deployment import Deployment, Status, StepName, Trigger
from agent.model.release import Layout
from agent.model.settings import Settings
from agent.sources.bundles import Bundles
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys
from agent.steps.context import Context, InstalledFiles
from agent.store.drains import Drains
from agent.store.state import State
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient
from agent.system.systemd import Systemd
from agent.traffic import registration

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul


@dataclass(frozen=True, slots=True)
class Equipment:
    """Built once, by the daemon. rows, afterwards, reconfigure: the lifecycle tables.

    systemd: None where the host has none, or the agent is not root.
    consul:  None where the configuration names none.
    """

    settings: Settings
    state: State
    installed: InstalledFiles
    hooks: HookRunner
    http: HttpClient
    keys: Keys
    group: HostGroup
    bundles: Bundles
    report: Callable[[Deployment], Awaitable[None]]
    systemd: Systemd | None
    consul: Consul | None = None
    rows: tuple[Row, ...] = LIFECYCLE
    afterwards: tuple[Row, ...] = AFTERWARDS
    reconfigure: tuple[Row, ...] = RECONFIGURE

    def rows_of(self, deployment: Deployment) -> tuple[Row, ...]:
        """The table that a deployment goes through before its commit."""
        is_change = deployment.trigger is Trigger.ENVIRONMENT
        return self.reconfigure if is_change else self.rows

    def context(
        self,
        deployment: Deployment,
        *,
        log: DeploymentLog,
        cancel: Cancel,
        progress: Callable[[int, int], None],
        pass_name: str,
        steps: Mapping[StepName, Status],
        unpacked: set[str],
    ) -> Context:
        """One deployment's view of the world; blocks, as it reads state."""
        application = deployment.revision.application
        layout = Layout(self.settings.state_dir)
        current = self.state.current(application)
        free = deployment.trigger in (Trigger.RETRY, Trigger.ROLLBACK)
        drain = Drains(self.state).of(application)
        refused = () if free else self.state.quarantined(application)
        return Context(
            deployment=deployment,
            settings=self.settings,
            release=layout.release(deployment.release, deployment.revision),
            current=None if current is None else layout.release(current.release, current.revision),
            work_dir=layout.work_dir(deployment.id),
            log=log,
            hooks=self.hooks,
            installed=self.installed,
            progress=progress,
            cancel=cancel,
            http=self.http,
            quarantined={entry.digest: entry.cause for entry in refused},
            keep=lambda: retention.choose_keep(self.state, layout, self.settings.retention),
            bundles=self.bundles,
            report=self.report,
            systemd=self.systemd,
            pass_name=pass_name,
            consul=self.consul,
            drained="" if drain is None else registration.drain_reason(drain.by, drain.reason),
            steps=steps,
            unpacked=unpacked,
        )
