"""What a publication did, or would do, at each target."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.model.errors import AgentError
from agent.model.manifest import BundleRef


class BundleResult(StrEnum):
    """What became of the bundle at a target."""

    UPLOADED = "uploaded"
    THERE = "there"
    WOULD_UPLOAD = "would_upload"
    MISSING = "missing"


class PointerResult(StrEnum):
    """What became of a pointer. RIGHT: it desired this revision already. KEPT: left as it was."""

    FLIPPED = "flipped"
    RIGHT = "right"
    WOULD_FLIP = "would_flip"
    KEPT = "kept"


class Outcome(StrEnum):
    """PARTIAL: this revision is desired by some pointers, and not by others."""

    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(slots=True)
class GroupResult:
    """A deployment group at a target. before: the version that it followed, "" for none."""

    group: str
    before: str = ""
    pointer: PointerResult = PointerResult.KEPT
    serial: int = 0
    expires: float = 0.0


@dataclass(slots=True)
class TargetResult:
    """failure: what stopped the work at this target, if something did."""

    name: str
    url: str
    groups: list[GroupResult]
    bundle: BundleResult = BundleResult.MISSING
    failure: AgentError | None = None


@dataclass(slots=True)
class Publication:
    """One revision for one environment. source: where the bundle came from. notes: for people."""

    environment: str
    application: str
    version: str
    bundle: BundleRef
    source: str
    is_dry_run: bool = False
    targets: list[TargetResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """How it ended, over all targets."""
        pointers = {group.pointer for target in self.targets for group in target.groups}
        if not (any(target.failure for target in self.targets) or PointerResult.KEPT in pointers):
            return Outcome.DONE
        is_desired = pointers - {PointerResult.KEPT}
        return Outcome.PARTIAL if is_desired else Outcome.FAILED
