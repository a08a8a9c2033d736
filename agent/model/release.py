"""An unpacked revision on this host, and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.model.deployment import Revision


@dataclass(frozen=True, slots=True)
class Release:
    """tree: the unpacked folder; index: what was unpacked (see archive/index.py), beside it.

    bundle: the archive in the bundle store; it may have been pruned.
    environment: the values of its services' environments, beside it; for root only.
    """

    name: str
    revision: Revision
    tree: Path
    index: Path
    bundle: Path
    environment: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders below the agent's state folder."""

    state_dir: Path

    @property
    def database(self) -> Path:
        """The SQLite file of store/."""
        return self.state_dir / "state.db"

    @property
    def bundles(self) -> Path:
        """The bundle store: <sha256>.<zip|tar|tgz>, and <release>.partial while fetching."""
        return self.state_dir / "bundles"

    @property
    def releases(self) -> Path:
        """Unpacked revisions: <release>/ and <release>.index."""
        return self.state_dir / "releases"

    def work_dir(self, deployment_id: str) -> Path:
        """One deployment's log, plan, and what it keeps for its undo."""
        return self.state_dir / "deployments" / deployment_id

    def release(self, name: str, revision: Revision) -> Release:
        """The release called `name` of `revision`."""
        return Release(
            name=name,
            revision=revision,
            tree=self.releases / name,
            index=self.releases / f"{name}.index",
            bundle=self.bundles / revision.digest,
            environment=self.releases / f"{name}.environment",
        )
