"""`agentctl deploy --foreground`: the real agent as a child, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import bundles
from tests.component import cli_server
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

_SLOW_START = """#!/bin/sh
echo "$$" > {base}/started.new
mv {base}/started.new {base}/started
sleep 300
"""


class Laptop:
    """A folder with a configuration, and agentctl used there without a daemon."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config = base / "agent.yaml"
        self.config.write_text(
            f"state_dir: {base}/state\nrun_dir: {base}/s\nhooks: {{grace: 1s}}\n"
        )
        self.running: list[subprocess.Popen[str]] = []

    def argv(self, command: str, *args: str) -> list[str]:
        more = ("--foreground", "--config", str(self.config))
        return cli_server.command(command, *args, *more)

    def agentctl(
        self, command: str, *args: str, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.argv(command, *args),
            env=cli_server.environment(TMPDIR=str(self.base)),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            **options,
        )

    def start(self, command: str, *args: str) -> subprocess.Popen[str]:
        """Start a command."""
        process = subprocess.Popen(
            self.argv(command, *args),
            env=cli_server.environment(TMPDIR=str(self.base)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """The private agents that are there, and the hooks of this folder's bundles."""
        found = []
        for process in psutil.process_iter():
            try:
                is_agent = str(self.config) in process.cmdline() and "-P" in process.cmdline()
                release = process.environ().get("RELEASE_DIR", "")
            except (psutil.Error, OSError):
                continue
            if is_agent or release.startswith(str(self.base)):
                found.append(process)
        return found

    def clear(self) -> None:
        """End what a failed test left running."""
        for process in self.running:
            process.kill()
            process.communicate()
        for left in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                left.kill()


@pytest.fixture
def laptop(state_dir: Path) -> Iterator[Laptop]:
    found = Laptop(state_dir)
    yield found
    found.clear()


def quiet_bundle(base: Path, version: str, start: str = "#!/bin/sh\nexit 0\n") -> Path:
    """A bundle whose hooks leave nothing running."""
    return bundles.make_bundle(base, version, hooks={"ApplicationStart": start})


def test_deploy_status_history_logs_without_a_daemon(laptop: Laptop) -> None:
    bundle = quiet_bundle(laptop.base, "1.0")
    done = laptop.agentctl("deploy", str(bundle), "--application", "service")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "service 1.0 succeeded" in done.stdout
    assert (laptop.base / "app" / "version").read_text() == "1.0\n"
    status = laptop.agentctl("status", "--json")
    assert status.returncode == 0
    assert json.loads(status.stdout)["applications"][0]["current"]["version"] == "1.0"
    assert "succeeded" in laptop.agentctl("history").stdout
    assert "start" in laptop.agentctl("logs").stdout
    assert not laptop.processes()
    assert not list(laptop.base.glob("agentctl-*"))


def test_plan_without_a_daemon(laptop: Laptop) -> None:
    bundle = quiet_bundle(laptop.base, "1.0")
    done = laptop.agentctl("plan", str(bundle), "--application", "service")
    assert done.returncode == 0, done.stderr
    assert f"{laptop.base}/app/version" in done.stdout
    assert not (laptop.base / "app").exists()


def test_failing_hook_is_undone_and_explained(laptop: Laptop) -> None:
    bundle = quiet_bundle(laptop.base, "1.0", "#!/bin/sh\necho no database >&2\nexit 7\n")
    done = laptop.agentctl("deploy", str(bundle), "--application", "service")
    assert done.returncode == 1
    assert "rolled back" in done.stdout
    assert "[hook-failed]" in done.stdout
    assert "no database" in done.stdout
    assert not (laptop.base / "app" / "version").exists()
    assert laptop.agentctl("status").returncode == 152


def start_slow_deployment(laptop: Laptop) -> subprocess.Popen[str]:
    """A deployment whose ApplicationStart runs."""
    bundle = quiet_bundle(laptop.base, "1.0", _SLOW_START)
    process = laptop.start("deploy", str(bundle), "--application", "service")
    wait_until((laptop.base / "started").exists, 20)
    assert (laptop.base / "app" / "version").exists()
    return process


def test_ctrl_c_aborts_and_undoes(laptop: Laptop) -> None:
    process = start_slow_deployment(laptop)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "Ctrl-C: aborting and undoing it" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # the hook would go on for minutes
    shown, said = process.communicate(timeout=50)
    assert process.returncode == 6, shown + said
    assert "was aborted" in shown
    assert not (laptop.base / "app" / "version").exists()
    assert not laptop.processes()


def test_timeout_aborts_and_undoes(laptop: Laptop) -> None:
    bundle = quiet_bundle(laptop.base, "1.0", _SLOW_START.replace("sleep 300", "sleep 4"))
    done = laptop.agentctl("deploy", str(bundle), "--application", "service", "--timeout", "2s")
    assert done.returncode == 10, done.stdout + done.stderr
    assert "--timeout is over: aborting and undoing it" in done.stdout
    assert not (laptop.base / "app" / "version").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_agent_is_left_where_agentctl_is_killed(laptop: Laptop, number: int) -> None:
    process = start_slow_deployment(laptop)
    process.send_signal(number)
    process.wait(9)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert number == signal.SIGKILL or not list(laptop.base.glob("agentctl-*"))
    wait_until(lambda: not laptop.processes(), 30)
    assert not (laptop.base / "app" / "version").exists()
    status = json.loads(laptop.agentctl("status", "--json").stdout)
    assert status["applications"][0]["last"]["outcome"] == "aborted"


def test_agent_that_does_not_start_says_why(laptop: Laptop) -> None:
    laptop.config.write_text("state_dri: /x\n")
    done = laptop.agentctl("deploy", "x.zip")
    assert done.returncode == 1
    assert "[config-invalid]" in done.stderr
    assert "state_dri" in done.stderr


def test_agent_that_dies_on_the_way_says_so(laptop: Laptop) -> None:
    process = start_slow_deployment(laptop)
    agent = next(each for each in laptop.processes() if "-P" in each.cmdline())
    agent.kill()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the private agent ended with -9" in said


def test_state_that_another_agent_uses(laptop: Laptop) -> None:
    process = start_slow_deployment(laptop)
    done = laptop.agentctl("status")
    assert done.returncode == 4
    assert "[state-in-use]" in done.stderr
    assert "  next:  Ask that agent" in done.stderr
    assert "agentctl without --foreground" in done.stderr
    assert process.poll() is None


@pytest.mark.root
def test_plain_user(laptop: Laptop) -> None:
    bundle = quiet_bundle(laptop.base, "1.0")
    for folder, _, files in os.walk(laptop.base):
        os.chown(folder, 65534, 65534)
        for name in files:
            os.chown(os.path.join(folder, name), 65534, 65534)
    done = laptop.agentctl(
        "deploy",
        str(bundle),
        "--application",
        "service",
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (laptop.base / "app" / "version").stat().st_uid == 65534


def test_folder_called_agent_is_not_taken_for_ours(laptop: Laptop) -> None:
    (laptop.base / "agent").mkdir()
    (laptop.base / "agent" / "__init__.py").write_text("raise SystemExit('the wrong agent')\n")
    argv = [cli_server.sys.executable, "-P", *laptop.argv("status")[1:]]
    done = subprocess.run(
        argv,
        env=cli_server.environment(),
        cwd=laptop.base,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing was deployed here yet" in done.stdout
