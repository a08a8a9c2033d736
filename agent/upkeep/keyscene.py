"""One application as keywatch finds it: what runs, its environments, what was tried with them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent.environment import changes, snapshots, variables
from agent.environment.snapshots import Kept
from agent.equipment import Equipment
from agent.formats import appspec as appspec_format
from agent.model.appspec import EnvironmentFile
from agent.model.consul import KvSnapshot
from agent.model.deployment import Current, Deployment, Outcome, Trigger
from agent.model.errors import AgentError
from agent.model.release import Layout

LOOK_AGAIN_SECONDS = 60.0  # a hold may be over


@dataclass(frozen=True, slots=True)
class KeyScene:
    """What was found.

    unread: the last change if it did not even come to read the keys, and that was just now.
    """

    current: Current
    files: Sequence[EnvironmentFile]
    kept: Kept
    refused: frozenset[str]
    is_busy: bool
    unread: Deployment | None

    def why_not(self, prefix: str, snapshot: KvSnapshot) -> str | None:
        """Why nothing is done about Consul's values of one prefix; None where something is."""
        known = self.kept.snapshots.get(prefix)
        try:
            values = variables.parse_values(snapshot)
        except AgentError as error:
            return f"the values of before stay: {error.message}"
        digest = variables.digest_of(values)
        if known is not None and digest == variables.digest_of(known.values):
            return ""
        if digest in self.refused:
            return (
                f"{prefix}/ at index {snapshot.index} was put back here, and is not tried again"
                " until it changes; or: agentctl retry"
            )
        if digest in self.kept.passed_over:
            return (
                f"{prefix}/ was rolled back here with its revision, and waits for its next change"
            )
        return None


class KeyScenes:
    """Looks at applications; blocks, and raises AgentError."""

    def __init__(self, equipment: Equipment) -> None:
        self._state = equipment.state
        self._layout = Layout(equipment.settings.state_dir)
        self._files: dict[str, Sequence[EnvironmentFile]] = {}  # by release

    def look(self, application: str) -> KeyScene | None:
        """None where nothing is current, or it names no environment. Blocks."""
        current = self._state.current(application)
        if current is None:
            return None
        if current.release not in self._files:
            if len(self._files) > 100:
                self._files.clear()
            appspec, _ = appspec_format.load_appspec(self._layout.releases / current.release)
            self._files[current.release] = snapshots.files_of(appspec)
        files = self._files[current.release]
        if not files:
            return None
        release = self._layout.release(current.release, current.revision)
        newest = next(iter(self._state.deployments(application, 1)), None)
        tried = self._tried(newest)
        is_new = newest is not None and time.time() - newest.ended_at < LOOK_AGAIN_SECONDS
        return KeyScene(
            current=current,
            files=files,
            kept=snapshots.load(release.environment),
            refused=frozenset(tried or ()),
            unread=newest if tried is not None and not tried and is_new else None,
            is_busy=any(
                each.revision.application == application for each in self._state.unfinished()
            ),
        )

    def _tried(self, newest: Deployment | None) -> list[str] | None:
        """Values that were tried last, and put back; None where the last change did not fail."""
        if newest is None or newest.trigger is not Trigger.ENVIRONMENT:
            return None
        if newest.outcome in (None, Outcome.SUCCEEDED, Outcome.SUPERSEDED):
            return None
        found = changes.digests(self._layout.work_dir(newest.id))
        return [found.digests[prefix] for prefix in found.changed]
