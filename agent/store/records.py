"""Rows of state.db to model values and back."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any

from agent.model.deployment import (
    Current,
    Deployment,
    Failure,
    Outcome,
    Revision,
    Status,
    Step,
    StepName,
    Trigger,
)

DEPLOYMENT_COLUMNS = (
    "id, application, deployment_group, version, bundle, digest, identity, serial, release,"
    ' "trigger", requested_by, status, created_at, started_at, ended_at, starts, step, outcome,'
    " failure, previous_version, size, built_from, signed_by"
)
STEP_COLUMNS = "name, status, started_at, seconds, undo_seconds, note, failure"


def _failure_text(failure: Failure | None) -> str | None:
    return None if failure is None else json.dumps(dataclasses.asdict(failure))


def _parse_failure(text: str | None) -> Failure | None:
    if text is None:
        return None
    value = json.loads(text)
    return Failure(**{**value, "evidence": tuple(value["evidence"])})


def deployment_row(deployment: Deployment) -> tuple[Any, ...]:
    """The values of DEPLOYMENT_COLUMNS, in order."""
    revision = deployment.revision
    return (
        deployment.id,
        revision.application,
        revision.group,
        revision.version,
        revision.bundle,
        revision.digest,
        revision.identity,
        revision.serial,
        deployment.release,
        deployment.trigger,
        deployment.requested_by,
        deployment.status,
        deployment.created_at,
        deployment.started_at,
        deployment.ended_at,
        deployment.starts,
        deployment.step,
        deployment.outcome,
        _failure_text(deployment.failure),
        deployment.previous_version,
        revision.size,
        revision.commit,
        revision.signed_by,
    )


def parse_deployment(row: sqlite3.Row) -> Deployment:
    """A row of DEPLOYMENT_COLUMNS."""
    return Deployment(
        id=row["id"],
        revision=Revision(
            application=row["application"],
            group=row["deployment_group"],
            version=row["version"],
            bundle=row["bundle"],
            digest=row["digest"],
            identity=row["identity"],
            serial=row["serial"],
            size=row["size"],
            commit=row["built_from"],
            signed_by=row["signed_by"],
        ),
        release=row["release"],
        trigger=Trigger(row["trigger"]),
        requested_by=row["requested_by"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        starts=row["starts"],
        step=None if row["step"] is None else StepName(row["step"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        failure=_parse_failure(row["failure"]),
        previous_version=row["previous_version"],
    )


def step_row(deployment_id: str, step: Step) -> tuple[Any, ...]:
    """deployment_id and the values of STEP_COLUMNS, in order."""
    return (
        deployment_id,
        step.name,
        step.status,
        step.started_at,
        step.seconds,
        step.undo_seconds,
        step.note,
        _failure_text(step.failure),
    )


def parse_step(row: sqlite3.Row) -> Step:
    """A row of STEP_COLUMNS."""
    return Step(
        name=StepName(row["name"]),
        status=Status(row["status"]),
        started_at=row["started_at"],
        seconds=row["seconds"],
        undo_seconds=row["undo_seconds"],
        note=row["note"],
        failure=_parse_failure(row["failure"]),
    )


def current_text(current: Current) -> str:
    """A committed revision as JSON text."""
    return json.dumps(dataclasses.asdict(current))


def parse_current(text: str | None) -> Current | None:
    """The reverse of current_text."""
    if text is None:
        return None
    value = json.loads(text)
    return Current(**{**value, "revision": Revision(**value["revision"])})
