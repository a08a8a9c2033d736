"""State as the JSON that the API answers with (docs/api.md)."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from agent.model.consul import ServiceHealth
from agent.model.deployment import Current, Deployment, Failure, Step
from agent.record import Record
from agent.store.drains import Drain
from agent.store.state import Hold, Quarantined
from agent.system import systemd
from agent.system.systemd import UnitState
from agent.traffic import passing, registration

SCHEMA = 1

Json = dict[str, Any]


def failure_view(failure: Failure | None) -> Json | None:
    """code, where, message, evidence, next."""
    return None if failure is None else dataclasses.asdict(failure)


def deployment_view(deployment: Deployment) -> Json:
    """A deployment without its steps."""
    revision = deployment.revision
    end = deployment.ended_at or (time.time() if deployment.started_at else 0.0)
    return {
        "id": deployment.id,
        "application": revision.application,
        "group": revision.group,
        "version": revision.version,
        "digest": revision.digest,
        "bundle": revision.bundle,
        "commit": revision.commit,
        "signed_by": revision.signed_by,
        "trigger": deployment.trigger,
        "requested_by": deployment.requested_by,
        "status": deployment.status,
        "outcome": deployment.outcome,
        "step": deployment.step,
        "created_at": deployment.created_at,
        "started_at": deployment.started_at,
        "ended_at": deployment.ended_at,
        "seconds": end - deployment.started_at if deployment.started_at else 0.0,
        "starts": deployment.starts,
        "previous_version": deployment.previous_version,
        "aborting": False,
        "failure": failure_view(deployment.failure),
        "steps": [],
        "progress": None,
    }


def step_view(step: Step) -> Json:
    """One step of a deployment."""
    return {
        "name": step.name,
        "status": step.status,
        "started_at": step.started_at,
        "seconds": step.seconds,
        "undo_seconds": step.undo_seconds,
        "note": step.note,
        "failure": failure_view(step.failure),
    }


def whole_view(deployment: Deployment, steps: list[Step]) -> Json:
    """An ended or waiting deployment with its steps."""
    ordered = sorted(steps, key=lambda step: step.started_at)
    return {**deployment_view(deployment), "steps": [step_view(step) for step in ordered]}


def running_view(record: Record, *, aborting: bool) -> Json:
    """The deployment that runs, with its steps and progress."""
    progress = record.progress
    return {
        **whole_view(record.deployment, list(record.steps.values())),
        "aborting": aborting,
        "progress": progress and dict(zip(("step", "done", "total"), progress, strict=True)),
    }


def current_view(current: Current | None) -> Json | None:
    """A committed revision."""
    if current is None:
        return None
    return {
        "version": current.revision.version,
        "digest": current.revision.digest,
        "commit": current.revision.commit,
        "signed_by": current.revision.signed_by,
        "deployment_id": current.deployment_id,
        "committed_at": current.committed_at,
        "release": current.release,
    }


def hold_view(hold: Hold | None) -> Json | None:
    """The hold in force."""
    return None if hold is None else dataclasses.asdict(hold)


def quarantine_view(entry: Quarantined) -> Json:
    """A revision that is refused here."""
    return {
        "version": entry.version,
        "digest": entry.digest,
        "since": entry.since,
        "cause": entry.cause,
        "deployment_id": entry.deployment_id,
    }


def unit_view(name: str, state: UnitState, enablement: str, trouble: str) -> Json:
    """A unit of the current revision, in systemd's words. trouble: "" while it runs.

    warning: "" while it is to start at boot, too.
    """
    off = systemd.not_at_boot(name, enablement)
    return {
        "unit": name,
        "active": state.active,
        "sub": state.sub,
        "result": state.result,
        "enablement": enablement,
        "main_pid": state.main_pid,
        "restarts": state.restarts,
        "trouble": trouble,
        "warning": "" if off is None else f"{off.cause}. {off.remedy}",
    }


def drain_view(drain: Drain | None) -> Json | None:
    """The drain in force."""
    return None if drain is None else dataclasses.asdict(drain)


def registration_view(service_id: str, found: ServiceHealth | None, *, is_known: bool) -> Json:
    """A service in Consul. is_known: whether Consul answered. trouble: "" while it passes."""
    trouble = ""
    if is_known and found is None:
        trouble = "it is not registered"
    elif found is not None and not passing.is_passing(found):
        trouble = "; ".join(passing.failing_checks(found))
    return {
        "id": found.id if found else service_id,
        "registered": found is not None if is_known else None,
        "registered_by": found.meta.get(registration.OWNER, "") if found else "",
        "version": found.meta.get("version", "") if found else "",
        "status": found.status if found else "",
        "passing": passing.is_passing(found) if is_known else None,
        "maintenance": found.maintenance if found else None,
        "trouble": trouble,
    }


def without_evidence(value: Any) -> Any:
    """The same with every failure's evidence left out."""
    if isinstance(value, dict):
        return {
            key: [] if key == "evidence" else without_evidence(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [without_evidence(each) for each in value]
    return value
