"""What `agentctl status` sums up in its exit code, and that its lines tell the truth."""

from __future__ import annotations

from typing import Any

import pytest

from agent import views
from agent.cli import exits, explain, status, text
from agent.cli.exits import StatusExit
from agent.model.deployment import Outcome
from agent.model.errors import AgentError, Code
from agent.system.systemd import UnitState
from tests.component import cli_server as api

HOLD = {"reason": "disk swap", "by": "bob", "since": 1000.0, "until": None}
SICK = {"state": "unhealthy", "detail": "Database: Bad", "reported_version": "1.215"}
OTHER = {"state": "unhealthy", "detail": "it is 1.214", "reported_version": "1.214"}
UNKNOWN = {"state": "unknown", "detail": "the appspec cannot be read", "reported_version": ""}
RUNNING = api.deployment(None)
WAITING = [api.deployment(None, status="pending")]


def in_consul(**changes: Any) -> dict[str, Any]:
    service = {"id": "web", "status": "passing", "trouble": "", "maintenance": None, **changes}
    return {"consul": {"services": [service], "drain": None, "problem": ""}}


def failed(outcome: str) -> dict[str, Any]:
    return {"last": api.deployment(outcome, failure=api.cause())}


@pytest.mark.parametrize(
    ("changes", "hold", "code"),
    [
        ({}, None, StatusExit.OK),
        (in_consul(), None, StatusExit.OK),
        (in_consul(trouble="it is not registered"), None, StatusExit.DEGRADED),
        (in_consul(status="maintenance", maintenance="disk"), None, StatusExit.OK),
        ({"health": {**SICK, "state": "unchecked"}}, None, StatusExit.OK),
        (failed("aborted"), None, StatusExit.OK),
        (failed("superseded"), None, StatusExit.OK),
        ({"health": UNKNOWN}, None, StatusExit.UNKNOWN),
        ({"health": UNKNOWN, "current": None, "last": None}, None, StatusExit.OK),
        (failed("failed"), None, StatusExit.ROLLED_BACK),
        (failed("rolled_back"), None, StatusExit.ROLLED_BACK),
        ({}, HOLD, StatusExit.HELD),
        (failed("rolled_back"), HOLD, StatusExit.HELD),
        ({"waiting": WAITING}, HOLD, StatusExit.HELD),
        ({"waiting": WAITING}, None, StatusExit.DEPLOYING),
        ({"running": RUNNING}, HOLD, StatusExit.DEPLOYING),
        ({"running": RUNNING, **failed("rolled_back")}, None, StatusExit.DEPLOYING),
        ({"running": RUNNING, "health": SICK}, None, StatusExit.DEPLOYING),
        ({"health": SICK}, HOLD, StatusExit.DEGRADED),
        ({"health": SICK, **failed("rolled_back")}, None, StatusExit.DEGRADED),
        ({"health": OTHER}, None, StatusExit.VERSION_MISMATCH),
        ({"health": {**OTHER, "state": "healthy"}}, None, StatusExit.OK),  # match: prefix
        ({"health": SICK, **failed("inconsistent")}, HOLD, StatusExit.INCONSISTENT),
        ({"running": RUNNING, **failed("inconsistent")}, None, StatusExit.INCONSISTENT),
    ],
)
def test_exit_code(changes: dict[str, Any], hold: dict[str, Any] | None, code: StatusExit) -> None:
    assert status.exit_code(api.status(api.application(**changes), hold=hold)) is code


def test_the_worst_application_counts() -> None:
    sick, busy = api.application(health=SICK), api.application(running=RUNNING)
    assert status.exit_code(api.status(busy, sick)) is StatusExit.DEGRADED
    assert status.exit_code(api.status(sick, busy)) is StatusExit.DEGRADED


def test_nothing_deployed_is_good() -> None:
    assert status.exit_code(api.status()) is StatusExit.OK


def test_every_outcome_has_an_exit_code() -> None:
    assert set(exits.BY_OUTCOME) == set(Outcome)


def test_every_outcome_has_its_sentence() -> None:
    sentences = {explain.ending(api.deployment(outcome), text.PLAIN) for outcome in Outcome}
    assert len(sentences) == len(Outcome)
    assert all("1.215" in sentence for sentence in sentences)


def test_what_never_began_left_nothing_behind() -> None:
    waited = api.deployment("aborted", started_at=0.0, previous_version="")
    assert explain.ending(waited, text.PLAIN).endswith("was aborted while it waited")


def test_lsb_codes_of_errors() -> None:
    gone = AgentError("x", code=Code.AGENT_UNREACHABLE)
    assert exits.for_error("status", gone) == 3
    assert exits.for_error("deploy", gone) == 7
    assert exits.for_error("status", AgentError("x", code=Code.NOT_PERMITTED)) == 4
    assert exits.for_error("deploy", AgentError("x", code=Code.NOT_PERMITTED)) == 4
    assert exits.for_error("deploy", AgentError("x", code=Code.APPSPEC_INVALID)) == 1


def lines(*applications: dict[str, Any], hold: dict[str, Any] | None = None) -> str:
    return "\n".join(status.lines(api.status(*applications, hold=hold), text.PLAIN, 1184.0))


def test_good_status_is_short() -> None:
    assert lines(api.application()).splitlines() == [
        "go-service  1.215  healthy, since 3 min ago",
        "  last:     1.215 succeeded 3 min ago (d-7K3M9QX2P)",
        "  took:     4.20 s: start 3.10 s, fetch 0.31 s",
        "",
        "deploy-agent 0.1.0, pid 42, up 5 min: nothing new",
    ]


def test_failure_is_told_with_cause_place_evidence_and_next() -> None:
    shown = lines(api.application(**failed("rolled_back")))
    for part in api.cause().values():
        for line in part if isinstance(part, list) else [part]:
            assert line in shown


def test_failed_undo_is_told_beside_the_first_failure() -> None:
    undo = api.cause(code="unit-failed", message="cannot start go.service")
    broken = api.deployment(
        "inconsistent", failure=api.cause(), steps=[api.step("stop", "failed", failure=undo)]
    )
    shown = lines(api.application(last=broken))
    assert "stop failed too:" in shown
    assert "cannot start go.service [unit-failed]" in shown


def test_what_runs_is_told_with_its_step() -> None:
    running = api.deployment(
        None,
        step="install",
        steps=[api.step("install", "doing", started_at=1180.0)],
        progress={"step": "install", "done": 40, "total": 100},
    )
    assert "1.215 doing install 40%, for 4.00 s (d-7K3M9QX2P)" in lines(
        api.application(running=running)
    )
    assert "aborting install" in lines(api.application(running={**running, "aborting": True}))


def test_what_consul_says() -> None:
    assert "consul:   web passing" in lines(api.application(**in_consul()))
    critical = in_consul(status="critical", trouble="port: critical: refused", maintenance="disk")
    critical["consul"]["problem"] = "cannot register"
    critical["consul"]["drain"] = {"reason": "swap", "by": "bob", "since": 1000.0, "until": None}
    shown = lines(api.application(**critical))
    assert "consul:   web port: critical: refused, out of traffic: disk" in shown
    assert "drained:  3 min ago by bob: swap; to end it: agentctl undrain" in shown
    assert "consul:   cannot register" in shown


def test_unit_that_does_not_start_at_boot_is_told() -> None:
    state = UnitState("web.service", "simple", "loaded", "active", "running")
    on, off, static = (
        views.unit_view("web.service", state, enablement, "")
        for enablement in ("enabled", "disabled", "static")
    )
    told = "web.service is disabled"
    good = {"state": "healthy", "detail": "", "reported_version": ""}
    assert told not in lines(api.application(health={**good, "units": [on, static]}))
    application = api.application(health={**good, "units": [on, off]})
    assert told in lines(application)
    assert "systemctl enable web.service" in lines(application)
    assert status.exit_code(api.status(application)) is StatusExit.OK


def test_hold_says_who_why_and_how_long() -> None:
    shown = lines(hold={**HOLD, "until": 1784.0})
    assert "held since 3 min ago by bob: disk swap (until " in shown
    assert "in 10 min)" in shown
    assert "no end set" in lines(hold=HOLD)


def test_quarantine_and_mismatch_are_told() -> None:
    last = failed("rolled_back")
    digest = last["last"]["digest"]
    refused = {"version": "1.216", "digest": digest, "since": 1000.0, "cause": "it was undone"}
    shown = lines(api.application(quarantined=[refused], health=OTHER, **last))
    assert "refused:  1.216, 3 min ago: it was undone; to try it again: agentctl retry" in shown
    assert "reports:  version 1.214" in shown


def test_what_retry_does_not_bring_is_told_how_to_deploy() -> None:
    refused = {"version": "1.213", "digest": "ab" * 32, "since": 1000.0, "cause": "it was undone"}
    shown = lines(api.application(quarantined=[refused]))
    assert "to try it again: agentctl deploy --force BUNDLE" in shown


def test_environment_is_told_without_values() -> None:
    file = {"prefix": "config/go", "index": 7, "names": ["A", "B"], "problem": "Consul is away"}
    environment = {"files": [file], "decision": "config/go/ at index 8 was put back here"}
    shown = lines(api.application(environment=environment))
    assert "  env:      2 variables of config/go, index 7; Consul is away\n" in shown
    assert "  env:      config/go/ at index 8 was put back here\n" in shown
    assert "env:" not in lines(api.application())


def test_source_problem_is_told() -> None:
    body = api.status()
    body["agent"]["sources"][0]["problem"] = "cannot read /srv: Permission denied"
    shown = "\n".join(status.lines(body, text.PLAIN, 1184.0))
    assert "source directory /srv: cannot read /srv: Permission denied" in shown
