"""Units of a revision on real hosts: started, watched, and put back just as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.host import unit_bundle
from tests.host.bundles import Hook
from tests.host.deb_host import DebHost
from tests.host.unit_bundle import UNIT, UnitWeb, service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

WEB = "web.service"
SLEEPS = "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
NO_STATUS = ({"unit": WEB},)
LONG_PROVED = (service(status={**unit_bundle.STATUS, "stable_for": "2s"}),)


@pytest.fixture
def by() -> str:
    return "unit"


def state(host: DebHost, unit: str = WEB) -> tuple[str, str]:
    """Whether it is active, and whether it is enabled."""
    enabled = host.host.run("systemctl", "is-enabled", unit, check=False).stdout.strip()
    return host.show(unit, "ActiveState"), enabled.replace("not-found", "")


def reloads(host: DebHost) -> int:
    """How often systemd has read its unit files in this boot."""
    found = [str(entry.get("MESSAGE", "")) for entry in host.host.journal("_PID=1", "-b")]
    return sum(text == "Reloading." or text.startswith("Reloading...") for text in found)


def times_begun(host: DebHost, version: str) -> int:
    """How often a process of this version was started in this boot."""
    said = host.host.journal(f"_SYSTEMD_UNIT={WEB}", "-b")
    return sum(entry["MESSAGE"] == f"begins, version {version}" for entry in said)


def assert_put_back(host: DebHost, view: dict[str, Any], before: dict[str, str]) -> None:
    assert view["outcome"] == "rolled_back", view
    assert host.installed() == before
    assert host.serving() == "1"
    assert state(host) == ("active", "enabled")
    assert host.show(WEB, "Description") == "web 1"
    assert host.host.output("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_a_unit_alone_is_enough(deb_host: DebHost) -> None:
    deb_host.deploy_good(UnitWeb("1"))
    assert state(deb_host) == ("active", "enabled")
    before = reloads(deb_host)
    deb_host.deploy_good(UnitWeb("2"))
    assert state(deb_host) == ("active", "enabled")
    assert reloads(deb_host) == before + 1
    assert deb_host.show(WEB, "Description") == "web 2"
    assert "web.service [output] begins, version 2" in deb_host.agentctl("logs", "last").stdout
    status = json.loads(deb_host.agentctl("status", "--json").stdout)
    health = status["applications"][0]["health"]
    (unit,) = health["units"]
    assert health["state"] == "healthy"
    assert (unit["unit"], unit["active"], unit["enablement"]) == (WEB, "active", "enabled")
    assert unit["warning"] == ""
    deb_host.host.run("systemctl", "disable", WEB)
    said = deb_host.agentctl("status")
    assert said.returncode == 0
    assert "web.service is disabled" in said.stdout
    assert f"systemctl enable {WEB}" in deb_host.agentctl("doctor").stdout


def test_no_reload_where_no_unit_file_changes(deb_host: DebHost) -> None:
    same = {WEB: UNIT.format(version="any", more="")}
    deb_host.deploy_good(UnitWeb("1", units=same))
    before = reloads(deb_host)
    deb_host.deploy_good(UnitWeb("2", units=same))
    assert deb_host.deploy(UnitWeb("3", units=same, does=unit_bundle.ENDS))["failure"]
    assert deb_host.serving() == "2"
    assert reloads(deb_host) == before


def test_status_tells_of_a_unit_that_is_down(serving_host: DebHost) -> None:
    serving_host.host.run("systemctl", "stop", WEB)
    said = serving_host.agentctl("status")
    assert "unhealthy" in said.stdout
    assert "web.service is inactive (dead)" in said.stdout
    assert said.returncode != 0


@pytest.mark.parametrize(
    ("web", "words", "evidence"),
    [
        pytest.param(
            UnitWeb("2", does=unit_bundle.ENDS, more="Restart=always"),
            "it ended with exit code 3",
            "no database: giving up",
            id="crash loop",
        ),
        pytest.param(
            UnitWeb("2", does=unit_bundle.ENDS),
            "it ended with exit code 3",
            "no database: giving up",
            id="ends at once",
        ),
        pytest.param(
            UnitWeb("2", does=unit_bundle.ENDS_LATER, services=LONG_PROVED),
            "it ended with exit code 4",
            "begins, version 2",
            id="ends while it is proved",
        ),
        pytest.param(
            UnitWeb("2", does=unit_bundle.ENDS_LATER, services=NO_STATUS),
            "it ended with exit code 4",
            "begins, version 2",
            id="ends, and has no status endpoint",
        ),
        pytest.param(
            UnitWeb(
                "2",
                does=unit_bundle.NEVER_READY,
                more="Type=notify",
                services=(service(start_timeout="1s"),),
            ),
            "it is still starting after",
            "begins, version 2",
            id="is never ready",
        ),
        pytest.param(
            UnitWeb("2", more="WorkingDirectory=/nowhere"),
            "exit code 200: its working directory could not be entered",
            "Changing to the requested working directory failed",
            id="cannot be executed",
        ),
    ],
)
def test_a_unit_that_fails(serving_host: DebHost, web: UnitWeb, words: str, evidence: str) -> None:
    before, were = serving_host.installed(), reloads(serving_host)
    view = serving_host.deploy(web)
    failure = view["failure"]
    assert failure["code"] == "unit-failed"
    assert failure["where"] == WEB
    assert words in failure["message"]
    assert evidence in "\n".join(failure["evidence"])
    assert view["seconds"] < 15  # and not after the 30 s in which it might have become healthy
    assert reloads(serving_host) == were + 2  # the install's, and the undo's
    assert_put_back(serving_host, view, before)


def test_another_version_answers(serving_host: DebHost) -> None:
    before = serving_host.installed()
    status = {**unit_bundle.STATUS, "within": "2s"}
    view = serving_host.deploy(UnitWeb("2", reports="1", services=(service(status=status),)))
    assert view["failure"]["code"] == "version-mismatch"
    assert_put_back(serving_host, view, before)


@pytest.mark.parametrize(
    ("web", "words"),
    [
        pytest.param(UnitWeb("2", more="ExecStart=/bin/true"), "systemd refuses", id="bad unit"),
        pytest.param(
            UnitWeb("2", more="ExecStartPre=/opt/no/such"), "/opt/no/such", id="no program"
        ),
        pytest.param(
            UnitWeb("2", services=({"unit": "wab.service"},)), "wab.service", id="no such unit"
        ),
        pytest.param(UnitWeb("2", without=("units/web.service",)), "removed", id="unit file goes"),
        pytest.param(
            UnitWeb("2", services=(service(), {"unit": "masked.service"})), "masked", id="masked"
        ),
    ],
)
def test_refused_before_anything_is_touched(
    serving_host: DebHost, web: UnitWeb, words: str
) -> None:
    serving_host.host.run("systemctl", "mask", "masked.service")
    process = serving_host.show(WEB, "MainPID")
    view = serving_host.deploy(web)
    assert view["outcome"] == "failed"
    assert view["failure"]["code"] == "plan-refused"
    assert words in "\n".join(view["failure"]["evidence"])
    assert serving_host.show(WEB, "MainPID") == process


def test_what_systemd_ignores_is_a_warning(serving_host: DebHost) -> None:
    serving_host.deploy_good(UnitWeb("2", more="Restrat=always"))
    said = serving_host.agentctl("logs", "last").stdout
    assert "warning: /etc/systemd/system/web.service:5: Unknown key" in said


@pytest.mark.parametrize("does", [unit_bundle.SERVES, unit_bundle.ENDS])
def test_a_unit_that_the_new_revision_has_not(deb_host: DebHost, does: str) -> None:
    extra = "extra.service"
    both = (service(), {"unit": extra})
    deb_host.deploy_good(UnitWeb("1", units={extra: SLEEPS}, services=both))
    before = deb_host.installed()
    assert state(deb_host, extra) == ("active", "enabled")
    view = deb_host.deploy(UnitWeb("2", does=does))
    if does == unit_bundle.SERVES:
        assert view["outcome"] == "succeeded"
        assert state(deb_host, extra) == ("inactive", "")
        assert not any(extra in line for line in deb_host.installed())
        assert "sleep infinity" not in " ".join(deb_host.processes())
    else:
        assert_put_back(deb_host, view, before)
        assert state(deb_host, extra) == ("active", "enabled")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("does", [unit_bundle.SERVES, unit_bundle.ENDS])
def test_a_unit_that_was_there_before(deb_host: DebHost, does: str, *, running: bool) -> None:
    host = deb_host.host
    host.write("/etc/systemd/system/web.service", UNIT.format(version="by hand", more=""))
    host.write("/opt/web/server", "#!/bin/sh\nexec sleep infinity\n", mode=0o755)
    host.run("systemctl", "daemon-reload")
    if running:
        host.run("systemctl", "start", WEB)
    before, was = deb_host.installed(), state(deb_host)
    process = deb_host.show(WEB, "MainPID")
    view = deb_host.deploy(UnitWeb("1", does=does, behavior="OVERWRITE"))
    if does == unit_bundle.SERVES:
        assert view["outcome"] == "succeeded"
        assert deb_host.serving() == "1"
        assert state(deb_host) == ("active", "enabled")
        assert deb_host.show(WEB, "MainPID") != process
    else:
        assert view["outcome"] == "rolled_back"
        assert deb_host.installed() == before
        assert state(deb_host) == was == ("active" if running else "inactive", "disabled")
        assert deb_host.show(WEB, "Description") == "web by hand"


def test_a_unit_that_does_not_stop_is_killed(deb_host: DebHost) -> None:
    deaf = (service(stop_timeout="1s"),)
    deb_host.deploy_good(UnitWeb("1", does=unit_bundle.IS_DEAF, services=deaf))
    view = deb_host.deploy_good(UnitWeb("2"))
    (stop,) = (step for step in view["steps"] if step["name"] == "stop")
    assert "did not stop within 1 s: killed" in stop["note"]
    assert 1 <= stop["seconds"] < 5


@pytest.mark.parametrize("does", [unit_bundle.SERVES, unit_bundle.ENDS])
def test_drop_ins(serving_host: DebHost, does: str) -> None:
    before = serving_host.installed()
    units = {"web.service.d/more.conf": "[Service]\nEnvironment=MORE=yes\n"}
    view = serving_host.deploy(UnitWeb("2", does=does, units=units))
    if does == unit_bundle.SERVES:
        assert view["outcome"] == "succeeded"
        assert serving_host.show(WEB, "Environment") == "MORE=yes"
    else:
        assert_put_back(serving_host, view, before)
        assert serving_host.show(WEB, "Environment") == ""


def test_a_failing_stop_hook_stops_the_unit_anyway(deb_host: DebHost) -> None:
    stop = {"ApplicationStop": Hook("#!/bin/sh\nexit 1\n")}
    deb_host.deploy_good(UnitWeb("1", hooks=stop))
    process = deb_host.show(WEB, "MainPID")
    view = deb_host.deploy_good(UnitWeb("2"))
    (step,) = (step for step in view["steps"] if step["name"] == "stop")
    assert "of the old revision 1 failed" in step["note"]
    assert deb_host.show(WEB, "MainPID") != process


def test_a_hook_that_starts_the_unit_itself(serving_host: DebHost) -> None:
    start = {"ApplicationStart": Hook("#!/bin/sh\nexec systemctl start web.service\n")}
    view = serving_host.deploy_good(UnitWeb("2", hooks=start))
    (step,) = (step for step in view["steps"] if step["name"] == "start")
    assert "hook" in step["note"]
    assert times_begun(serving_host, "2") == 1


def test_from_hooks_to_units(deb_host: DebHost) -> None:
    """A host of CodeDeploy that moves to services: the old hooks stop, the agent starts."""
    stop = {"ApplicationStop": Hook("#!/bin/sh\nexit 0\n")}  # which leaves it running
    start = {
        "ApplicationStart": Hook("#!/bin/sh -e\nsystemctl daemon-reload\nsystemctl start web\n")
    }
    only_status = ({"status": unit_bundle.STATUS},)
    deb_host.deploy_good(UnitWeb("1", hooks={**stop, **start}, services=only_status))
    before = deb_host.installed()
    assert state(deb_host) == ("active", "disabled")
    view = deb_host.deploy(UnitWeb("2", does=unit_bundle.ENDS))
    assert view["outcome"] == "rolled_back", view
    assert (deb_host.serving(), state(deb_host)) == ("1", ("active", "disabled"))
    assert deb_host.installed() == before
    deb_host.deploy_good(UnitWeb("3"))
    assert state(deb_host) == ("active", "enabled")


ALSO_TIMERS = "[Install]\nWantedBy=timers.target"


def test_an_install_section_that_says_more(serving_host: DebHost) -> None:
    before = serving_host.installed()
    more = "/etc/systemd/system/timers.target.wants/web.service"
    view = serving_host.deploy(UnitWeb("2", does=unit_bundle.ENDS, more=ALSO_TIMERS))
    assert_put_back(serving_host, view, before)
    serving_host.deploy_good(UnitWeb("3", more=ALSO_TIMERS))
    assert more in serving_host.installed()


def test_a_hook_enables_the_unit_and_fails(deb_host: DebHost) -> None:
    deb_host.host.path("/opt/web").mkdir()
    before = deb_host.installed()
    fails = Hook("#!/bin/sh\nsystemctl enable --now web.service\nexit 1\n")
    view = deb_host.deploy(UnitWeb("1", hooks={"AfterInstall": fails}))
    assert view["outcome"] == "rolled_back", view
    assert deb_host.installed() == before
    assert state(deb_host) == ("inactive", "")
    assert "/opt/web/server" not in " ".join(deb_host.processes())


def test_an_abort_while_a_unit_starts(serving_host: DebHost) -> None:
    before = serving_host.installed()
    slow = (service(start_timeout="60s"),)
    never = UnitWeb("2", does=unit_bundle.NEVER_READY, more="Type=notify", services=slow)
    deployment_id = serving_host.request(never)
    wait_until(lambda: serving_host.show(WEB, "ActiveState") == "activating", 20)
    assert serving_host.agentctl("abort", "--now").returncode == 0
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "aborted", view
    assert_put_back(serving_host, {**view, "outcome": "rolled_back"}, before)


def test_two_of_a_template(deb_host: DebHost) -> None:
    one, two = "worker@1.service", "worker@2.service"
    units = {"worker@.service": SLEEPS}
    services = (service(), {"unit": one}, {"unit": two})
    deb_host.deploy_good(UnitWeb("1", units=units, services=services))
    assert state(deb_host, one) == state(deb_host, two) == ("active", "enabled")
    deb_host.deploy_good(UnitWeb("2", units=units, services=services[:2]))
    assert state(deb_host, one) == ("active", "enabled")
    assert state(deb_host, two) == ("inactive", "disabled")


def test_the_agent_is_restarted_while_a_unit_starts(serving_host: DebHost) -> None:
    serving_host.configure("short", "shutdown: 0.2s\n")
    late = UnitWeb("2", does=unit_bundle.READY_LATE, more="Type=notify")
    deployment_id = serving_host.request(late)
    wait_until(lambda: serving_host.show(WEB, "ActiveState") == "activating", 20)
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    view = serving_host.wait_for_outcome(deployment_id)
    assert view["outcome"] == "succeeded", view
    assert serving_host.serving() == "2"
    assert times_begun(serving_host, "2") == 1


def test_a_timer_and_what_it_starts(deb_host: DebHost) -> None:
    units = {
        "tidy.service": "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/tidied\n",
        "tidy.timer": "[Timer]\nOnActiveSec=1h\n[Install]\nWantedBy=timers.target\n",
    }
    services = (service(), {"unit": "tidy.service"}, {"unit": "tidy.timer"})
    deb_host.deploy_good(UnitWeb("1", units=units, services=services))
    assert deb_host.host.path("/run/tidied").exists()
    assert state(deb_host, "tidy.timer") == ("active", "enabled")
    assert state(deb_host, "tidy.service") == ("inactive", "static")
    assert "healthy" in deb_host.agentctl("status").stdout
