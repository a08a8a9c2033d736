"""A changed key of Consul reaches a unit: restarted, reloaded or signalled, proved or put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.host import consul_on_host
from tests.host.deb_host import DebHost
from tests.host.unit_bundle import UnitWeb, service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

WEB = "web.service"
FILE = "/etc/web/env"
# what the unit was given, and what it is told; a word in it ends the program
DOES = """print("environment", sorted(k + "=" + v for k, v in os.environ.items()
    if k.startswith("WEB_")), flush=True)
signal.signal(signal.SIGHUP, lambda *_: print("told by SIGHUP", flush=True))
if os.environ.get("WEB_WORD") == "broken":
    sys.exit(3)
"""
MORE = f"EnvironmentFile={FILE}\nExecReload=/bin/sh -c 'echo told to reload; cat {FILE}'"
ODD = 'two\nlines "quoted" $HOME `id` \\ ü #end '


@pytest.fixture
def by() -> str:
    return "unit"


@pytest.fixture
def web_host(deb_host: DebHost) -> DebHost:
    """One with a Consul of its own."""
    consul_on_host.start(deb_host)
    return deb_host


def put(host: DebHost, **values: str) -> None:
    consul_on_host.put(host, "config/web", **values)


def bundle(version: str, on_change: str = "restart") -> UnitWeb:
    environment = {"prefix": "config/web", "file": FILE, "on_change": on_change, "slots": 1}
    return UnitWeb(version, does=DOES, more=MORE, services=(service(environment=environment),))


def said(host: DebHost) -> list[str]:
    return [str(each["MESSAGE"]) for each in host.host.journal(f"_SYSTEMD_UNIT={WEB}", "-b")]


def change(host: DebHost, number: int = 1) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        history = host.ask("/v1/deployments")["deployments"]
        known = [each for each in history if each["trigger"] == "environment"]
        is_there = len(known) >= number and known[0]["status"] in ("done", "failed")
        return host.deployment(known[0]["id"]) if is_there else {}

    return wait_until(found, 60.0)


def test_restart_with_the_new_values_and_back(web_host: DebHost) -> None:
    put(web_host, WEB_WORD="good", WEB_ODD=ODD)
    web_host.deploy_good(bundle("1"))
    given = f"environment {[f'WEB_ODD={ODD}', 'WEB_WORD=good']}"
    assert given in said(web_host)
    assert web_host.host.output("stat", "-c", "%a %U:%G", FILE) == "600 root:root"
    before = web_host.show(WEB, "InvocationID")
    put(web_host, WEB_WORD="better")
    view = change(web_host)
    assert view["outcome"] == "succeeded", view["failure"]
    assert view["requested_by"] == "Consul config/web"  # with a slot
    assert web_host.show(WEB, "InvocationID") != before
    assert given.replace("good", "better") in said(web_host)
    put(web_host, WEB_WORD="broken")
    view = change(web_host, 2)
    assert view["outcome"] == "rolled_back"
    assert web_host.serving() == "1"
    assert said(web_host)[-1] == given.replace("good", "better")
    assert 'WEB_WORD="better"' in web_host.host.output("cat", FILE)
    status = json.loads(web_host.agentctl("status", "--json").stdout)
    assert "was put back here" in status["applications"][0]["environment"]["decision"]


@pytest.mark.parametrize(
    ("on_change", "told"), [("reload", "told to reload"), ("signal:HUP", "told by SIGHUP")]
)
def test_told_without_a_restart(web_host: DebHost, on_change: str, told: str) -> None:
    put(web_host, WEB_WORD="good")
    web_host.deploy_good(bundle("1", on_change))
    before = web_host.show(WEB, "InvocationID")
    put(web_host, WEB_WORD="better")
    view = change(web_host)
    assert view["outcome"] == "succeeded", view["failure"]
    assert web_host.show(WEB, "InvocationID") == before
    wait_until(lambda: told in said(web_host), 5.0)
    assert 'WEB_WORD="better"' in web_host.host.output("cat", FILE)


def test_unit_that_does_not_run_is_left_so(web_host: DebHost) -> None:
    environment = {"prefix": "config/web", "file": FILE}
    entry = {"unit": WEB, "environment": environment}
    put(web_host, WEB_WORD="good")
    web_host.deploy_good(UnitWeb("1", does=DOES, more=MORE, services=(entry,)))
    web_host.host.run("systemctl", "stop", WEB)
    put(web_host, WEB_WORD="better")
    view = change(web_host)
    assert view["outcome"] == "succeeded", view["failure"]
    assert web_host.show(WEB, "ActiveState") == "inactive"
    assert Path(web_host.host.path(FILE)).exists()


def test_restart_leaves_the_traffic_and_comes_back(web_host: DebHost) -> None:
    environment = {"prefix": "config/web", "file": FILE}
    consul = {
        "name": "web",
        "port": 8080,
        "check": {"http": "/status", "interval": "1s"},
        "drain": "1s",
    }
    entry = service(environment=environment, consul=consul)
    put(web_host, WEB_WORD="good")
    web_host.deploy_good(UnitWeb("1", does=DOES, more=MORE, services=(entry,)))
    put(web_host, WEB_WORD="broken")
    assert change(web_host)["outcome"] == "rolled_back"
    assert in_consul(web_host) == ("passing", None)
    put(web_host, WEB_WORD="better")
    view = change(web_host, 2)
    assert view["outcome"] == "succeeded", view["failure"]
    notes = {step["name"]: step["note"] for step in view["steps"]}
    assert "out of traffic, drained 1 s" in notes["block-traffic"]
    assert in_consul(web_host) == ("passing", None)
    [shown] = web_host.ask("/v1/status")["applications"]
    assert shown["consul"]["problem"] == ""


# its part in this: what the prefix has, as variables of the program
ENVCONSUL = """#!/bin/sh
[ "$1" = -prefix ] || exit 64
for key in $(/usr/local/bin/consul kv get -keys "$2/"); do
    export "${key##*/}=$(/usr/local/bin/consul kv get "$key")"
done
shift 2
exec "$@"
"""


def test_moving_from_envconsul_and_back(web_host: DebHost) -> None:
    """The steps of docs/environment.md; envconsul itself is in no registry of ours."""
    envconsul = Path(web_host.host.path("/usr/local/bin/envconsul"))
    envconsul.write_text(ENVCONSUL)
    envconsul.chmod(0o755)
    file = Path(web_host.host.path(FILE))
    put(web_host, WEB_WORD="good")
    command = "/usr/local/bin/envconsul -prefix config/web /opt/web/server"
    web_host.deploy_good(UnitWeb("1", does=DOES, more=f"ExecStart=\nExecStart={command}"))
    given = "environment ['WEB_WORD=good']"
    assert said(web_host).count(given) == 1
    assert not file.exists()

    web_host.deploy_good(bundle("2"))
    assert said(web_host).count(given) == 2
    envconsul.rename(f"{envconsul}.away")
    put(web_host, WEB_WORD="better")
    assert change(web_host)["outcome"] == "succeeded"
    given = given.replace("good", "better")
    assert said(web_host).count(given) == 1

    Path(f"{envconsul}.away").rename(envconsul)
    assert web_host.agentctl("rollback").returncode == 0
    web_host.wait_until_serving("1")
    assert said(web_host).count(given) == 2
    assert not file.exists()


def in_consul(host: DebHost) -> tuple[str, Any]:
    """How Consul sees the service: its status, and why it is out of traffic."""
    [application] = host.ask("/v1/status")["applications"]
    [found] = application["consul"]["services"]
    return found["status"], found["maintenance"]
