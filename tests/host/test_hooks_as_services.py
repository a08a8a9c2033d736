"""What a hook is given as a service of PID 1, what holds for it, and how its end is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

_SECONDS = 20.0
_EVENT = "AfterInstall"
_LOOK = """#!/usr/bin/python3 -I
import json, os, signal
def descriptors():
    seen = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            seen[name] = os.readlink(f"/proc/self/fd/{name}").split(":")[0]
        except FileNotFoundError:
            pass
    return seen
umask = os.umask(0)
os.umask(umask)
with open("/dev/stderr", "w") as again:
    print("opened again", file=again)
ignored = [number for number in range(1, 32) if signal.getsignal(number) == signal.SIG_IGN]
with open("/tmp/look.json", "w") as file:
    json.dump({
        "environment": dict(os.environ),
        "descriptors": descriptors(),
        "cwd": os.getcwd(),
        "umask": umask,
        "ignored": ignored,
        "cgroup": open("/proc/self/cgroup").read().strip(),
    }, file)
"""
_PLACES = """#!/bin/bash
for place in /usr /etc /srv /tmp "$RELEASE_DIR"; do
    if touch "$place/touched" 2>/dev/null; then echo "$place: yes"; else echo "$place: no"; fi
done
"""


def deploy(host: DebHost, text: str, **options: Any) -> dict[str, Any]:
    """Deploy revision 2 with a hook."""
    return host.deploy(Web("2", hooks={_EVENT: Hook(text, **options)}))


def deploy_good(host: DebHost, text: str, **options: Any) -> dict[str, Any]:
    view = deploy(host, text, **options)
    assert view["outcome"] == "succeeded", view["failure"]
    return view


def log(host: DebHost) -> str:
    return host.agentctl("logs").stdout


def look(host: DebHost, **options: Any) -> dict[str, Any]:
    """What a hook sees of itself."""
    deploy_good(host, _LOOK, **options)
    seen: dict[str, Any] = json.loads(host.host.path("/tmp/look.json").read_text())
    return seen


def test_environment_is_exactly_what_is_documented(serving_host: DebHost) -> None:
    host = serving_host.host
    host.run("systemctl", "set-environment", "LEAK=of PID 1", "BASH_ENV=/etc/leak")
    host.write("/etc/leak", "export LEAK=of-a-file\n")
    drop_in = "[Service]\nEnvironment=CONSUL_HTTP_TOKEN=secret\n"
    host.write("/etc/systemd/system/deploy-agent.service.d/secret.conf", drop_in)
    host.run("systemctl", "daemon-reload")
    serving_host.configure("group", "deployment_group: blue\n")
    host.run("useradd", "--create-home", "--shell", "/bin/bash", "app")
    found = look(serving_host, runas="app")["environment"]
    last = serving_host.deployment()
    releases = "/var/lib/deploy-agent/releases"
    assert found == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ":/usr/lib/deploy-agent/hooks",
        "HOME": "/home/app",
        "USER": "app",
        "LOGNAME": "app",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "LIFECYCLE_EVENT": "AfterInstall",
        "DEPLOYMENT_ID": last["id"],
        "APPLICATION_NAME": "web",
        "DEPLOYMENT_GROUP_NAME": "blue",
        "DEPLOYMENT_GROUP_ID": "blue",
        "REVISION_VERSION": "2",
        "PREVIOUS_VERSION": "1",
        "RELEASE_DIR": f"{releases}/{last['id']}",
        "HOOK_TIMEOUT": "30",
        "DEPLOY_AGENT_SOCKET": "/run/deploy-agent/agent.sock",
    }


def test_a_hook_is_alone_in_its_slice(serving_host: DebHost) -> None:
    found = look(serving_host)
    deployment_id = serving_host.deployment()["id"]
    assert set(found["descriptors"]) - {"3"} == {"0", "1", "2"}  # 3 looked at them
    assert found["descriptors"]["0"] == "/dev/null"
    assert found["cwd"] == f"/var/lib/deploy-agent/releases/{deployment_id}"
    assert found["umask"] == 0o022
    assert found["ignored"] in ([], [13, 25])  # PIPE and XFSZ are Python's own doing
    assert f"deploy-hooks.slice/deploy-hook-{deployment_id}-" in found["cgroup"].replace(
        "deploy.slice/", ""
    )
    assert "[output] opened again" in log(serving_host)


def test_words_arrive_as_they_are(serving_host: DebHost) -> None:
    location = "scripts/$HOME ${PATH} $$ %n %% a=b 'it'.sh"
    deploy_good(serving_host, '#!/bin/sh\necho "I am $0"\n', location=location)
    release = f"/var/lib/deploy-agent/releases/{serving_host.deployment()['id']}"
    assert f"[output] I am {release}/{location}\n" in log(serving_host)


@pytest.mark.parametrize("location", [f"scripts/{_EVENT}", "scripts/two words"])
def test_systemd_reads_a_hook_s_unit_again_without_a_word(
    serving_host: DebHost, location: str
) -> None:
    """On a daemon-reload PID 1 reads the file that it has made of a transient unit."""
    deploy_good(serving_host, "#!/bin/sh\nsystemctl daemon-reload\n", location=location)
    said = [str(each["MESSAGE"]) for each in serving_host.host.journal("_PID=1")]
    assert [line for line in said if "deploy-hook" in line and "ignoring" in line] == []
    assert [line for line in said if "Log field lacks" in line] == []


def test_the_journal_tells_whose_line_it_is(serving_host: DebHost) -> None:
    deploy_good(serving_host, "#!/bin/sh\necho '<3>an unmistakable line'\n")
    deployment_id = serving_host.deployment()["id"]
    entries = serving_host.host.journal(f"DEPLOYMENT_ID={deployment_id}", "STEP=after-install")
    found = [each for each in entries if each["MESSAGE"] == "<3>an unmistakable line"]
    assert len(found) == 1
    wanted = {
        "APPLICATION": "web",
        "REVISION_VERSION": "2",
        "LIFECYCLE_EVENT": _EVENT,
        "HOOK": f"scripts/{_EVENT}",
        "SYSLOG_IDENTIFIER": "deploy-hook",
    }
    assert {name: found[0][name] for name in wanted} == wanted


def test_limits_are_those_of_the_configuration(serving_host: DebHost) -> None:
    limits = "memory_max: 300M, processes_max: 77, cpu_weight: 20, grace: 3s"
    serving_host.configure("limits", f"hooks: {{{limits}}}\n")
    waiting = "#!/bin/sh\ntouch /tmp/begun\nuntil [ -e /tmp/go ]; do sleep 0.05; done\n"
    hooks = {_EVENT: Hook(waiting, timeout=45)}
    deployment_id = serving_host.request(Web("2", hooks=hooks))
    wait_until(serving_host.host.path("/tmp/begun").exists, _SECONDS)
    pattern = f"deploy-hook-{deployment_id}-*.service"
    listed = serving_host.host.output("systemctl", "list-units", "--plain", "--no-legend", pattern)
    unit = listed.split()[0]
    wanted = {
        "MemoryMax": str(300 * 2**20),
        "TasksMax": "77",
        "CPUWeight": "20",
        "TimeoutStopUSec": "3s",
        "KillMode": "control-group",
        "Slice": "deploy-hooks.slice",
    }
    assert {name: serving_host.show(unit, name) for name in wanted} == wanted
    assert serving_host.show(unit, "TimeoutStartUSec") in ("45s", "44.999s", "44.998s", "44.997s")
    serving_host.host.write("/tmp/go", "")
    assert serving_host.wait_for_outcome(deployment_id)["outcome"] == "succeeded"


@pytest.mark.parametrize(
    ("sandbox", "writable"),
    [
        ("none", "/usr /etc /srv /tmp"),
        ("system", "/etc /srv /tmp"),
        ("strict", "/tmp"),
    ],
)
def test_sandbox(serving_host: DebHost, sandbox: str, writable: str) -> None:
    serving_host.configure("sandbox", f"hooks: {{sandbox: {sandbox}}}\n")
    release = "/var/lib/deploy-agent/releases"
    deploy_good(serving_host, _PLACES) if sandbox != "strict" else deploy(serving_host, _PLACES)
    said = [line.partition("[output] ")[2] for line in log(serving_host).splitlines()]
    found = [line.removesuffix(": yes") for line in said if line.endswith(": yes")]
    assert " ".join(found[:-1]) == writable
    assert found[-1].startswith(release)
    assert serving_host.host.path("/tmp/touched").exists() == (sandbox != "strict")


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        ("#!/bin/sh\nkill -9 $$\n", "ended by SIGKILL", "signal"),
        ("#!/bin/sh\nexit 3\n", "exit code 3", ""),
        ("#!/bin/sh\nexit 200\n", "exit code 200", ""),
        ("#!/bin/sh\n/etc/passwd\n", "exit code 126", "126"),
        ("#!/bin/sh\nno-such-command\n", "exit code 127", "127"),
    ],
)
def test_how_it_ended_is_told(serving_host: DebHost, text: str, cause: str, hint: str) -> None:
    view = deploy(serving_host, text)
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "hook-failed"
    assert f"{cause} after" in view["failure"]["message"]
    hints = [line for line in view["failure"]["evidence"] if line.startswith("hint: ")]
    assert any(hint in line for line in hints) or not hint
    assert not serving_host.host.output("systemctl", "list-units", "--failed", "--no-legend")


def test_left_over_is_ended_if_configured(serving_host: DebHost) -> None:
    serving_host.configure("left", "hooks: {leftover: kill, grace: 500ms}\n")
    deploy_good(serving_host, "#!/bin/bash\n(exec -a left-by-the-hook sleep 300) &\n")
    assert "1 process left over" in log(serving_host)
    assert not [line for line in serving_host.processes() if line.startswith("left-by-the-hook")]


def test_what_left_its_cgroup_may_go_on_writing(serving_host: DebHost) -> None:
    loop = "until [ -e /tmp/go ]; do sleep 0.05; done; echo late; exec -a wrote-late sleep 300"
    hook = f"#!/bin/bash\nsystemd-run --quiet --scope bash -c '{loop}' &\nsleep 0.5\n"
    assert deploy_good(serving_host, hook)["seconds"] < 30
    serving_host.host.write("/tmp/go", "")
    wait_until(lambda: any("wrote-late" in line for line in serving_host.processes()), _SECONDS)


def test_left_over_has_its_unit_for_as_long_as_it_runs(serving_host: DebHost) -> None:
    host = serving_host.host
    name = "left-by-the-hook"
    deploy_good(serving_host, f"#!/bin/bash\n(exec -a {name} sleep 300) &\n")
    units = ("systemctl", "list-units", "--plain", "--no-legend", "deploy-hook-*.service")
    assert host.output(*units).split()[2:4] == ["active", "exited"]
    serving_host.host.run("systemctl", "restart", "deploy-agent")
    serving_host.wait_for_agent()
    assert any(line.startswith(name) for line in serving_host.processes())
    host.run("systemctl", "kill", "--signal=KILL", host.output(*units).split()[0])
    wait_until(lambda: not any(name in line for line in serving_host.processes()), _SECONDS)
    serving_host.deploy_good(Web("3"))
    assert host.output(*units) == ""


def test_a_private_agent_runs_hooks_the_same_way(serving_host: DebHost) -> None:
    serving_host.host.run("systemctl", "stop", "deploy-agent")
    path = serving_host.put_bundle(Web("2", hooks={_EVENT: Hook(_LOOK)}))
    done = serving_host.agentctl("deploy", "--foreground", path)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(serving_host.host.path("/tmp/look.json").read_text())
    assert "deploy-hooks.slice" in seen["cgroup"]
