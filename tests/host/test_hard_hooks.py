"""Hooks that behave badly, on real hosts: the deployment goes on or is undone, nothing is left."""

from __future__ import annotations

import pytest

from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost

pytestmark = pytest.mark.slow

_MARK = "marked-by-the-test"
# Two daemons without parent, session and environment; one is deaf to TERM.
_DAEMONS = f"""#!/bin/bash
for _ in 1 2; do
    (setsid env -i bash -c 'trap "" TERM; exec -a {_MARK} sleep 300' &)
done
(setsid env -i bash -c 'exec -a {_MARK} sleep 300' </dev/null >/dev/null 2>&1 &)
"""


def left_over(host: DebHost) -> list[str]:
    """Command lines of a hook's processes that still run."""
    return [line for line in host.processes() if line.startswith(_MARK)]


def test_deaf_to_term(serving_host: DebHost) -> None:
    serving_host.configure("grace", "hooks: {grace: 500ms}\n")
    before = serving_host.installed()
    deaf = f"#!/bin/bash\ntrap '' TERM\n(exec -a {_MARK} sleep 300)\nsleep 300\n"
    view = serving_host.deploy(Web("2", hooks={"AfterInstall": Hook(deaf, timeout=1)}))
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "hook-timeout"
    assert not left_over(serving_host)
    assert serving_host.installed() == before
    assert serving_host.serving() == "1"


def test_daemons_of_a_failing_hook_are_ended(serving_host: DebHost) -> None:
    serving_host.configure("grace", "hooks: {grace: 500ms}\n")
    view = serving_host.deploy(Web("2", hooks={"AfterInstall": Hook(f"{_DAEMONS}\nexit 1\n")}))
    assert view["failure"]["code"] == "hook-failed"
    assert not left_over(serving_host)
    assert serving_host.serving() == "1"


def test_daemons_of_a_good_hook_hold_nothing_up(serving_host: DebHost) -> None:
    view = serving_host.deploy_good(Web("2", hooks={"AfterInstall": Hook(_DAEMONS)}))
    assert view["seconds"] < 10
    assert len(left_over(serving_host)) == 3
    assert _MARK in serving_host.agentctl("logs").stdout  # they are named


def test_floods_its_log(serving_host: DebHost) -> None:
    # 50 MB; journald takes some 50,000 lines a second
    flood = f"#!/bin/sh\nseq --format='line %.0f of a long story{'.' * 80}' 460000\necho the end\n"
    serving_host.configure("log", "hooks: {log: 1M}\n")
    serving_host.deploy_good(Web("2", hooks={"AfterInstall": Hook(flood, timeout=55)}))
    log = serving_host.host.output("sh", "-c", "cat /var/lib/deploy-agent/deployments/*/log")
    assert "line 1 of a long story" in log
    assert "the end" in log
    assert len(log) < 2**20 * 1.5
    status = serving_host.host.path(f"/proc/{serving_host.agent_pid()}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 100 * 1024, peak


def test_runs_as_another_user(serving_host: DebHost) -> None:
    who = "#!/bin/sh\nid -un >/tmp/who\nid -Gn >>/tmp/who\necho $HOME >>/tmp/who\n"
    serving_host.host.run("useradd", "--create-home", "--groups", "adm", "app")
    serving_host.deploy_good(Web("2", hooks={"AfterInstall": Hook(who, runas="app")}))
    seen = serving_host.host.path("/tmp/who").read_text().split("\n")
    assert seen[0] == "app"
    assert set(seen[1].split()) == {"app", "adm"}
    assert seen[2] == "/home/app"


@pytest.mark.parametrize("stop_failure", ["fallback", "fail"])
def test_stop_of_the_old_revision_fails(serving_host: DebHost, stop_failure: str) -> None:
    serving_host.deploy_good(Web("2", hooks={"ApplicationStop": Hook("#!/bin/sh\nexit 1\n")}))
    serving_host.configure("stop", f"stop_failure: {stop_failure}\n")
    view = serving_host.deploy(Web("3"))
    if stop_failure == "fail":
        assert view["outcome"] == "rolled_back"
        assert "ApplicationStop" in view["failure"]["where"]
        assert serving_host.serving() == "2"
    else:
        assert view["outcome"] == "succeeded", view["failure"]
        assert serving_host.serving() == "3"
