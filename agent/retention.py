"""What prune keeps: current and previous always, then the newest, within count, size and age."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from agent.model.deployment import Outcome
from agent.model.settings import Retention
from agent.steps.context import Keep
from agent.store.state import State


def choose_keep(state: State, retention: Retention) -> Keep:
    """Names of releases and bundles and ids of deployments that stay; records beyond them go."""
    releases: set[str] = set()
    bundles: set[str] = set()
    deployments: set[str] = set()
    doomed: list[str] = []
    oldest = time.time() - retention.max_age_seconds if retention.max_age_seconds else 0.0
    for application in state.applications():
        known = state.deployments(application, limit=100_000)
        needed = [c for c in (state.current(application), state.previous(application)) if c]
        releases |= {each.release for each in needed}
        bundles |= {each.revision.digest for each in needed}
        deployments |= {each.deployment_id for each in needed}
        bundles |= {each.revision.digest for each in known[:1]}  # what a retry would need
        good = [each for each in known if each.outcome is Outcome.SUCCEEDED]
        fresh = [each for each in good if each.created_at >= oldest]
        # a rollback is a deployment of its own, of a release that is counted already
        releases |= _first(retention.releases, (each.release for each in fresh))
        bundles |= _first(retention.bundles, (each.revision.digest for each in fresh))
        for number, each in enumerate(known):
            if each.outcome is None:  # waiting or on its way
                releases.add(each.release)
                bundles.add(each.revision.digest)
                deployments.add(each.id)
            elif number < retention.deployments or each.id in deployments:
                deployments.add(each.id)
            else:
                doomed.append(each.id)
    if doomed:
        state.forget(doomed)
    return Keep(frozenset(releases), frozenset(bundles - {""}), frozenset(deployments))


def _first(count: int, names: Iterable[str]) -> set[str]:
    return set(itertools.islice(dict.fromkeys(names), count))
