"""What prune keeps: current and previous always, then the newest, within count, size and age."""

from __future__ import annotations

import time

from agent.archive.index import Index
from agent.model.deployment import Current, Deployment, Outcome
from agent.model.errors import AgentError
from agent.model.release import Layout
from agent.model.settings import Retention
from agent.steps.context import Keep
from agent.store.state import State


def choose_keep(state: State, layout: Layout, retention: Retention) -> Keep:
    """Names of releases and bundles and ids of deployments that stay; records beyond them go."""
    keep = Keep(frozenset(), frozenset(), frozenset())
    for application in state.applications():
        known = state.deployments(application, limit=100_000)
        needed = [c for c in (state.current(application), state.previous(application)) if c]
        one = _keep_of_one(known, needed, layout, retention)
        state.forget([each.id for each in known if each.id not in one.deployments])
        keep = Keep(
            keep.releases | one.releases,
            keep.bundles | one.bundles,
            keep.deployments | one.deployments,
        )
    return keep


def _keep_of_one(
    known: list[Deployment], needed: list[Current], layout: Layout, retention: Retention
) -> Keep:
    """What stays of one application. known: its deployments, newest first."""
    unended = [each for each in known if each.outcome is None]
    releases = {each.release for each in needed} | {each.release for each in unended}
    bundles = {each.revision.digest for each in needed}
    # what is on its way, and what a retry would need
    bundles |= {each.revision.digest for each in (*unended, *known[:1])}
    deployments = {each.deployment_id for each in needed} | {each.id for each in unended}
    deployments |= {each.id for each in known[: retention.deployments]}
    oldest = time.time() - retention.max_age_seconds if retention.max_age_seconds else 0.0
    room = retention.max_bytes or float("inf")
    # a rollback is a deployment of its own, of a release that is counted already
    spare = {each.release: each for each in reversed(known) if each.outcome is Outcome.SUCCEEDED}
    newest = sorted(spare.values(), key=lambda each: -each.created_at)
    for number, each in enumerate(newest):
        room -= _size(layout, each)
        if each.created_at < oldest or room < 0:
            break
        if number < retention.releases:
            releases.add(each.release)
        if number < retention.bundles:
            bundles.add(each.revision.digest)
    return Keep(frozenset(releases), frozenset(bundles - {""}), frozenset(deployments))


def _size(layout: Layout, deployment: Deployment) -> int:
    """Bytes of its bundle and of what was unpacked from it, 0 for what is gone."""
    release = layout.release(deployment.release, deployment.revision)
    size = release.bundle.stat().st_size if release.bundle.is_file() else 0
    try:
        with Index(release.index) as index:
            return size + index.totals().bytes
    except AgentError:
        return size
