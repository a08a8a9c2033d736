"""What is registered, what counts as the agent's own, and which services files define."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.appspec import ConsulCheck, ConsulService
from agent.model.consul import CheckHealth, CheckStatus, ServiceHealth
from agent.model.deployment import Revision
from agent.store.drains import Drain, Drains
from agent.store.state import State
from agent.traffic import definitions, passing, registration

SERVICE = ConsulService("web", "web", port=80, tags=("a",), check=ConsulCheck(tcp="127.0.0.1:80"))
REVISION = Revision("shop", "default", "1.2", "/b.zip", digest="ab" * 32)
WANTED = registration.registration(SERVICE, REVISION, "d-1")
FOUND = ServiceHealth(
    id="web",
    name="web",
    host="h",
    address="",
    port=80,
    tags=("a",),
    meta=dict(WANTED.meta),
    checks=(CheckHealth("service:web:1", "web", CheckStatus.PASSING),),
)


def test_what_is_registered_tells_whose_it_is() -> None:
    assert WANTED.meta == {
        "deploy-agent": "shop",
        "version": "1.2",
        "revision": "ab" * 32,
        "deployment_id": "d-1",
    }
    [check] = WANTED.checks
    assert (check.tcp, check.status) == ("127.0.0.1:80", CheckStatus.CRITICAL)
    assert registration.registration(replace(SERVICE, check=None), REVISION, "d-1").checks == ()
    long = replace(REVISION, version="1" * 600)
    assert len(registration.registration(SERVICE, long, "d-1").meta["version"]) == 512


@pytest.mark.parametrize(
    ("found", "is_same"),
    [
        (FOUND, True),
        (replace(FOUND, port=81), False),
        (replace(FOUND, tags=()), False),
        (replace(FOUND, checks=()), False),
        (replace(FOUND, meta={**FOUND.meta, "version": "1.1"}), False),
        (replace(FOUND, address="10.0.0.1"), False),
    ],
)
def test_whether_it_is_registered_just_so(found: ServiceHealth, *, is_same: bool) -> None:
    assert registration.is_registered(WANTED, found) is is_same


@pytest.mark.parametrize(
    ("found", "is_stranger"),
    [
        (FOUND, False),
        (replace(FOUND, meta={}), True),
        (replace(FOUND, meta={"deploy-agent": "other"}), True),
        (replace(FOUND, meta={}, id="web-80"), True),
        (replace(FOUND, meta={}, id="web-81", port=81), False),
        (replace(FOUND, meta={}, id="web-2", port=0), False),
    ],
)
def test_who_else_registered_it(found: ServiceHealth, *, is_stranger: bool) -> None:
    stranger = registration.find_stranger("shop", SERVICE, [found])
    assert (stranger is found) is is_stranger


def test_a_name_without_a_port_is_not_taken_for_another() -> None:
    other = replace(FOUND, meta={}, id="web-2", port=0)
    assert registration.find_stranger("shop", replace(SERVICE, port=0), [other]) is None


@pytest.mark.parametrize(
    ("reason", "is_deployments", "is_ours"),
    [
        (registration.deployment_reason("d-1", "1.2"), True, True),
        (registration.drain_reason("ann", "disk"), False, True),
        ("disk", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_whose_maintenance_it_is(
    reason: str | None, *, is_deployments: bool, is_ours: bool
) -> None:
    assert registration.is_deployments(reason) is is_deployments
    assert registration.is_ours(reason) is is_ours


def test_passing_is_what_its_checks_say_not_its_maintenance() -> None:
    blocked = replace(FOUND, maintenance="x", status=CheckStatus.MAINTENANCE)
    assert passing.is_passing(blocked)
    assert passing.is_passing(replace(FOUND, checks=()))
    assert not passing.is_passing(None)
    warning = replace(FOUND, checks=(CheckHealth("a", "port", CheckStatus.WARNING, "429\n"),))
    assert not passing.is_passing(warning)
    assert passing.failing_checks(warning) == ("port: warning: 429",)


def test_services_that_files_define(tmp_path: Path) -> None:
    texts = {
        "a.json": '{"service": {"name": "web", "port": 80}}',
        "b.json": '{"services": [{"ID": "db-1", "Name": "db"}, {"name": "web"}, 3]}',
        "broken.json": '{"service": {',
        "list.json": "[1]",
        "other.json": '{"datacenter": "dc1", "service": {"port": 1}}',
        "c.hcl": 'service { name = "x" }',
        "broken.hcl": 'service { name = "y"',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in (*texts, "missing.json")]
    assert definitions.read_ids(paths) == ("web", "db-1", "x")
    unread = [str(tmp_path / name) for name in ("broken.json", "list.json", "broken.hcl")]
    assert list(definitions.find_unread(paths)) == unread


def test_drains_expire_and_end(tmp_path: Path) -> None:
    drains = Drains(State(tmp_path / "state.db"))
    now = time.time()
    assert (drains.of("shop"), drains.next_end()) == (None, None)
    drain = Drain("shop", "disk", "ann", now, None)
    drains.save(drain)
    assert (drains.of("shop"), drains.of("other"), drains.next_end()) == (drain, None, None)
    timed = replace(drain, until=now + 60)
    drains.save(timed)
    drains.save(replace(timed, application="other", until=now - 1))
    assert (drains.of("shop"), drains.of("other")) == (timed, None)
    assert drains.next_end() == now + 60
    drains.end("shop")
    drains.end("shop")
    assert drains.of("shop") is None
