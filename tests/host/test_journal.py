"""What journalctl and agentctl logs tell of a deployment, on real hosts."""

from __future__ import annotations

import pytest

from agent.lifecycle import AFTERWARDS, LIFECYCLE
from agent.model.messages import Message
from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
UNIT = "_SYSTEMD_UNIT=deploy-agent.service"
FAILING = Hook("#!/bin/sh\necho all is well\necho no route to the database >&2\nexit 3\n")


def kinds(host: DebHost, deployment_id: str) -> list[tuple[str, str]]:
    """What the agent told of a deployment: kinds of entries, and their steps."""
    entries = host.host.journal(UNIT, f"DEPLOYMENT_ID={deployment_id}")
    for entry in entries:
        assert entry["APPLICATION"] == "web"
        assert entry["SYSLOG_IDENTIFIER"] == "deploy-agent"
        assert entry["REVISION_VERSION"].startswith("1.21")
    return [
        (Message(entry["MESSAGE_ID"]).name, entry.get("STEP", ""))
        for entry in entries
        if "MESSAGE_ID" in entry
    ]


def test_good_deployment_tells_every_step(deb_host: DebHost) -> None:
    view = deb_host.deploy_good(Web("1.214"))
    deb_host.wait_for_outcome(view["id"])
    forward = [row.name.value for row in LIFECYCLE]
    after = [row.name.value for row in AFTERWARDS]
    expected = [("DEPLOYMENT_REQUESTED", ""), ("DEPLOYMENT_BEGUN", "")]
    for name in forward:
        expected += [("STEP_BEGUN", name), ("STEP_DONE", name)]
    expected.append(("COMMITTED", "commit"))
    for name in after:
        expected += [("STEP_BEGUN", name), ("STEP_DONE", name)]
    assert kinds(deb_host, view["id"]) == expected


def test_failed_deployment_is_explained_by_the_journal_alone(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1.214"))
    view = deb_host.deploy(Web("1.215", hooks={"AfterInstall": FAILING}))
    told = [name for name, _ in kinds(deb_host, view["id"])]
    for name in ("HOOK_FAILED", "UNDO_BEGUN", "UNDO_DONE", "ROLLED_BACK", "QUARANTINED"):
        assert name in told
    said = deb_host.host.journal(f"DEPLOYMENT_ID={view['id']}", "LIFECYCLE_EVENT=AfterInstall")
    assert {entry["APPLICATION"] for entry in said} == {"web"}
    assert {entry["REVISION_VERSION"] for entry in said} == {"1.215"}
    assert {entry["STEP"] for entry in said} == {"after-install"}
    texts = [(entry["SYSLOG_IDENTIFIER"], entry["MESSAGE"].splitlines()[0]) for entry in said]
    for text in ("all is well", "no route to the database"):
        assert ("deploy-hook", text) in texts
    ended = f"{view['id']}: AfterInstall scripts/AfterInstall: exit code 3 after"
    assert any(who == "deploy-agent" and text.startswith(ended) for who, text in texts)
    matches = (UNIT, f"DEPLOYMENT_ID={view['id']}", f"MESSAGE_ID={Message.HOOK_FAILED}")
    (entry,) = deb_host.host.journal(*matches)
    assert entry["PRIORITY"] == "3"
    assert entry["STEP"] == "after-install"
    assert entry["LIFECYCLE_EVENT"] == "AfterInstall"
    assert entry["FAILURE_CODE"] == "hook-failed"
    assert entry["FAILURE_NEXT"] in entry["MESSAGE"]
    assert "no route to the database" in entry["MESSAGE"]
    command = [
        "journalctl",
        "--no-pager",
        "-x",
        "-u",
        "deploy-agent",
        f"DEPLOYMENT_ID={view['id']}",
    ]
    text = deb_host.host.output(*command)
    assert "no route to the database" in text
    assert "Subject: A hook failed" in text
    assert "AfterInstall scripts/AfterInstall of web 1.215 failed" in text
    assert "@" not in text.replace("@timestamp", "")


def test_log_is_followed_across_a_restart_to_the_last_line(deb_host: DebHost) -> None:
    gate = Hook("#!/bin/sh\necho waits\nwhile [ ! -e /run/gate ]; do sleep 0.1; done\n")
    deployment_id = deb_host.request(Web("1.214", hooks={"BeforeInstall": gate}))
    deb_host.host.run("touch", "/srv/told")
    following = deb_host.host.popen("sh", "-c", f"exec agentctl logs -f {deployment_id} >/srv/told")
    wait_until(lambda: deb_host.deployment(deployment_id)["step"] == "before-install", 30.0)
    told = deb_host.host.path("/srv/told")
    wait_until(lambda: "waits" in told.read_text(), 30.0)
    deb_host.kill_agent()
    deb_host.host.run("touch", "/run/gate")
    said, _ = following.communicate(timeout=60)
    assert following.returncode == 0, said
    view = deb_host.wait_for_outcome(deployment_id)
    assert view["outcome"] in ("rolled_back", "succeeded")
    assert said.count("the agent went away") == 1
    shown = told.read_text().splitlines()
    whole = deb_host.agentctl("logs", deployment_id).stdout.splitlines()
    assert shown == whole
    assert "prune: done" in whole[-1]
    assert [line[:24] for line in whole] == sorted(line[:24] for line in whole)


def test_log_without_an_agent(deb_host: DebHost) -> None:
    view = deb_host.deploy_good(Web("1.214"))
    whole = deb_host.agentctl("logs", view["id"]).stdout
    deb_host.host.run("systemctl", "stop", "deploy-agent")
    done = deb_host.agentctl("logs")
    assert (done.returncode, done.stdout) == (0, whole)
    assert "nothing listens" in done.stderr
    assert f"/var/lib/deploy-agent/deployments/{view['id']}/log" in done.stderr
    assert deb_host.agentctl("logs", "-f").returncode == 7
    done = deb_host.agentctl("logs", "d-NONE")
    assert (done.returncode, done.stdout) == (7, "")
    assert deb_host.agentctl("logs", user="nobody").stdout == ""
