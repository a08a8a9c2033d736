"""`agentctl doctor` on hosts that are well, and on hosts that are broken in one way each."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.component import cli_server
from tests.component.test_lifecycle_full_disk import small_disk
from tests.trees import fingerprint
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

NOBODY = 65534


class Doctor:
    """A host folder, and what the doctor says of it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.host = AgentHost(base)

    def configure(self, text: str) -> None:
        """Add to agent.yaml."""
        with self.host.config.open("a") as file:
            file.write(text)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            cli_server.command("doctor", "--config", str(self.host.config), *args),
            env=cli_server.environment(**env),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Exit code and answer."""
        done = self.run("--json")
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def say(self, subject: str) -> list[str]:
        """What it says of a subject: "level: text → remedy"."""
        _, body = self.ask()
        return lines(body, subject)


def lines(body: dict[str, Any], subject: str) -> list[str]:
    return [
        f"{each['level']}: {each['text']} → {each['remedy']}"
        for each in body["findings"]
        if each["subject"] == subject
    ]


@pytest.fixture
def doctor(state_dir: Path) -> Iterator[Doctor]:
    found = Doctor(state_dir)
    yield found
    found.host.clear()


def test_a_host_that_is_well(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    code, body = doctor.ask()
    assert code == 0, body
    assert (body["schema"], body["problems"]) == (1, 0)
    assert "answers" in lines(body, "agent")[0]
    assert lines(body, "applications") == ["ok: service 1 is deployed → "]
    assert lines(body, "state")[0].startswith("ok: ")
    done = doctor.run()
    assert "\nok       applications: service 1 is deployed\n" in done.stdout
    assert "problem" not in done.stdout


def test_a_dead_daemon_is_a_problem_and_the_rest_is_looked_at(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    doctor.host.kill()
    before = fingerprint(doctor.host.state_dir)
    code, body = doctor.ask()
    assert code == 1
    assert lines(body, "agent")[0].startswith("problem: cannot reach deploy-agent")
    assert "systemctl start deploy-agent" in lines(body, "agent")[0]
    assert lines(body, "applications") == ["ok: service 1 is deployed → "]
    assert fingerprint(doctor.host.state_dir) == before


def test_what_a_killed_daemon_left_unfinished(doctor: Doctor) -> None:
    doctor.host.start({"row": "install", "at": "do-after", "how": "kill"})
    doctor.host.request(make_bundle(doctor.base, "1"))
    doctor.host.wait_for_end()
    said = doctor.say("applications")
    assert said[0].startswith("problem: service 1 (d-")
    assert "resumes or undoes it" in said[0]


def test_refused_revision_and_hold(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    bad = make_bundle(doctor.base, "2", hooks={"ApplicationStart": "#!/bin/sh\nexit 7\n"})
    assert doctor.host.deploy(bad)["outcome"] == "rolled_back"
    doctor.host.ask("PUT", "/v1/hold", {"reason": "the database moves"})
    code, body = doctor.ask()
    hold, refused, current = lines(body, "applications")
    assert code == 0
    assert hold.startswith("warning: root holds deployments")
    assert "the database moves" in hold
    assert refused.startswith("warning: service 2 is refused")
    assert "agentctl retry service" in refused
    assert current == "ok: service 1 is deployed → "


def test_an_undo_that_failed(doctor: Doctor) -> None:
    doctor.host.start(
        {"row": "start", "at": "do-after", "how": "fail"},
        {"row": "install", "at": "undo-before", "how": "fail"},
    )
    assert doctor.host.deploy(make_bundle(doctor.base, "1"))["outcome"] == "inconsistent"
    code, body = doctor.ask()
    assert code == 1
    assert lines(body, "applications")[0].startswith("problem: service: the undo of service 1")


@pytest.mark.root
def test_what_the_current_revision_needs_is_gone(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    appspec = next((doctor.host.state_dir / "releases").glob("*/appspec.yml"))
    text = appspec.read_text().replace("timeout: 60", "timeout: 60\n      runas: gone-user", 1)
    appspec.write_text(text)
    assert "problem: service 1: its hooks run as gone-user" in doctor.say("applications")[0]
    appspec.unlink()
    assert "problem: service: the release of 1 is not whole" in doctor.say("applications")[0]


def test_every_error_of_the_configuration(doctor: Doctor) -> None:
    doctor.configure("poll_intervall: 2s\nlimits: {free: many}\n")
    code, body = doctor.ask()
    said = lines(body, "config")
    assert code == 1
    assert said[0].startswith(f"problem: cannot use the configuration {doctor.host.config}")
    assert any("poll_intervall" in line for line in said)
    assert any("limits" in line or "many" in line for line in said)
    assert lines(body, "disk")  # the rest is looked at all the same


def test_a_configuration_that_hangs(doctor: Doctor) -> None:
    doctor.host.config.unlink()
    os.mkfifo(doctor.host.config)
    began = time.monotonic()
    code, body = doctor.ask()
    assert code == 1
    assert "no answer within" in lines(body, "config")[0]
    assert lines(body, "disk")
    assert time.monotonic() - began < 20


@pytest.mark.root
def test_a_configuration_that_others_may_change(doctor: Doctor) -> None:
    assert len(doctor.say("config")) == 1
    doctor.host.config.chmod(0o666)
    assert "problem: everybody may change" in doctor.say("config")[1]
    doctor.host.config.chmod(0o644)
    os.chown(doctor.host.config, NOBODY, 0)
    assert "problem: user nobody may change" in doctor.say("config")[1]


def test_a_secret_that_all_may_read(doctor: Doctor) -> None:
    doctor.configure("x-consul: {token: very-secret}\n")
    doctor.host.config.chmod(0o640)
    assert len(doctor.say("config")) == 1
    doctor.host.config.chmod(0o644)
    done = doctor.run()
    assert "holds token" in done.stdout
    assert "very-secret" not in done.stdout


def test_a_configuration_that_is_newer_than_the_agent(doctor: Doctor) -> None:
    doctor.host.start()
    started_at = doctor.host.ask("GET", "/v1/version")["started_at"]
    wait_until(lambda: time.time() > started_at + 0.1)  # file systems count in coarser steps
    doctor.configure("# a comment is a change, too\n")
    said = doctor.say("agent")
    assert any(f"{doctor.host.config} changed" in line for line in said), said
    assert "systemctl restart deploy-agent" in said[-1]


def test_another_version_runs_than_is_installed(doctor: Doctor) -> None:
    with cli_server.serving(doctor.base) as api:
        old = {"pid": 1, "started_at": time.time(), "state_dir": str(doctor.host.state_dir)}
        api.on("GET", "/v1/version", cli_server.ok(version="0.0.1", **old))
        api.on("GET", "/v1/status", (200, cli_server.status()))
        done = doctor.run("--json", "--socket", api.socket)
    said = lines(json.loads(done.stdout), "agent")
    assert said[0].startswith("warning: version 0.0.1 runs, ")


def test_an_agent_that_uses_the_state_but_does_not_answer(doctor: Doctor) -> None:
    doctor.host.start()
    done = doctor.run("--json", "--socket", str(doctor.base / "nothing-here"))
    said = lines(json.loads(done.stdout), "agent")
    assert "though pid " in said[0]
    assert "journalctl _PID=" in said[0]


def source(doctor: Doctor, name: str = "drop") -> Path:
    path = doctor.base / name
    doctor.configure(f"sources: [{{type: directory, path: {path}}}]\n")
    return path


def test_a_source_that_is_missing(doctor: Doctor) -> None:
    path = source(doctor)
    code, body = doctor.ask()
    assert code == 1
    said = lines(body, "sources")[0]
    assert said.startswith(f"problem: {path} is not there → Make it (mkdir -p {path})")
    path.touch()
    assert doctor.say("sources")[0].startswith(f"problem: {path} is no folder")


@pytest.mark.root
def test_who_may_put_a_revision_into_a_source(doctor: Doctor) -> None:
    path = source(doctor)
    path.mkdir()
    assert doctor.say("sources")[0].endswith("only root may put revisions there → ")
    os.chown(path, NOBODY, 0)
    assert "user nobody may put revisions there" in doctor.say("sources")[0]
    for folder, mode in ((path, 0o777), (path, 0o1777), (path / "shop", 0o777)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        said = doctor.say("sources")
        assert said[0].startswith(f"problem: everybody may put a revision into {path}"), mode
        assert f"chmod o-w {folder}" in said[0]
        folder.chmod(0o755)
    assert doctor.say("sources")[0].startswith("ok: ")


@pytest.mark.root
def test_a_source_below_a_folder_of_everybody(doctor: Doctor) -> None:
    path = source(doctor, "open/drop")
    path.mkdir(parents=True)
    path.parent.chmod(0o777)
    assert f"chmod o-w {path.parent}" in doctor.say("sources")[0]
    path.parent.chmod(0o1777)  # as /tmp: nobody but its owner can move the folder away
    assert doctor.say("sources")[0].startswith("ok: ")


@pytest.mark.root
def test_a_disk_without_room(doctor: Doctor) -> None:
    with small_disk(doctor.base / "disk", 8 * 2**20):
        doctor.host = AgentHost(doctor.base, state_dir=doctor.base / "disk" / "state")
        code, body = doctor.ask()
    assert code == 1
    assert "less than limits.free, 64 MiB" in lines(body, "disk")[0]


@pytest.mark.root
def test_a_full_disk_with_a_state_on_it(doctor: Doctor) -> None:
    with small_disk(doctor.base / "disk", 8 * 2**20):
        folder = doctor.base / "disk" / "state"
        doctor.host = AgentHost(doctor.base, state_dir=folder)
        doctor.host.start()
        doctor.host.stop()
        with (folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(folder).f_bavail * 4096)
        _, body = doctor.ask()
    assert lines(body, "disk")[0].startswith("problem: 0 MiB (0 %) free")
    assert lines(body, "state")[0].startswith("ok: ")


@pytest.mark.root
@pytest.mark.parametrize(("option", "said"), [("noexec", "mounted noexec"), ("ro", "read-only")])
def test_how_the_disk_is_mounted(doctor: Doctor, option: str, said: str) -> None:
    with small_disk(doctor.base / "disk", 80 * 2**20):
        doctor.host = AgentHost(doctor.base, state_dir=doctor.base / "disk")
        remount = ["mount", "-o", f"remount,{option}", doctor.base / "disk"]
        subprocess.run(remount, check=True)
        assert any(said in line for line in doctor.say("disk") if line.startswith("problem"))


def test_a_damaged_database(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    doctor.host.stop()
    database = doctor.host.state_dir / "state.db"
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)
    octets = database.read_bytes()
    code, body = doctor.ask()
    assert code == 1
    said = lines(body, "state")[0]
    assert said.startswith(f"problem: cannot read {database}: ")
    assert f"mv {database}" in said
    assert database.read_bytes() == octets


def test_a_database_of_a_newer_agent(doctor: Doctor) -> None:
    doctor.host.state_dir.mkdir()
    with sqlite3.connect(doctor.host.state_dir / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "format level 99 is newer" in doctor.say("state")[0]


@pytest.mark.root
def test_a_state_folder_that_others_may_change(doctor: Doctor) -> None:
    doctor.host.state_dir.mkdir(mode=0o755)
    doctor.host.state_dir.chmod(0o777)
    assert doctor.say("state")[0].startswith("problem: everybody may change what lies in")


@pytest.mark.root
def test_another_user_is_told_what_was_not_looked_at(doctor: Doctor) -> None:
    doctor.host.start()
    doctor.host.deploy_good(make_bundle(doctor.base, "1"))
    source(doctor, "secret/drop").mkdir(parents=True)
    (doctor.base / "secret").chmod(0o700)
    doctor.base.chmod(0o711)
    argv = cli_server.command("doctor", "--json", "--config", str(doctor.host.config))
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *argv],
        env=cli_server.environment(HOME="/nonexistent"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    body = json.loads(done.stdout)
    for subject in ("state", "applications", "sources"):
        assert lines(body, subject)[0].startswith("unknown: "), subject
    assert body["unknown"] >= 3


def test_colours_only_where_they_are_welcome(doctor: Doctor) -> None:
    assert "\x1b[" not in doctor.run().stdout
    script = f"exec {' '.join(cli_server.command('doctor', '--config', str(doctor.host.config)))}"
    shown = {}
    for name, env in (("plain", {"NO_COLOR": "1"}), ("coloured", {})):
        done = subprocess.run(
            ["script", "-qec", script, "/dev/null"],
            env=cli_server.environment(TERM="xterm", **env),
            capture_output=True,
            timeout=30,
            check=False,
        )
        shown[name] = done.stdout
    assert b"\x1b[" not in shown["plain"]
    assert b"\x1b[31mproblem" in shown["coloured"]


def test_from_a_launcher_that_is_isolated(doctor: Doctor) -> None:
    """As the .deb's /usr/bin/agentctl: -I, and the folder of the modules put in front."""
    lines_of_launcher = (
        f"import sys; sys.path.insert(0, {str(cli_server.ROOT)!r});"
        f"from agent.cli.main import main;"
        f"sys.exit(main(['doctor', '--config', {str(doctor.host.config)!r}]))"
    )
    (doctor.base / "agent").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", lines_of_launcher],
        cwd=doctor.base,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem  agent: " in done.stdout


def test_the_lock_is_left_alone(doctor: Doctor) -> None:
    doctor.host.start()
    lock = doctor.host.state_dir / "lock"
    before = lock.stat()
    for _ in range(3):
        assert doctor.run().returncode == 0
    assert (lock.stat().st_mtime_ns, stat.S_IMODE(lock.stat().st_mode)) == (
        before.st_mtime_ns,
        0o600,
    )
    assert doctor.host.is_answering()


def test_a_doctor_that_cannot_start_says_why(doctor: Doctor) -> None:
    broken = doctor.base / "broken"
    broken.mkdir()
    (broken / "yaml.py").write_text("raise ImportError('libc.so.7: not found')\n")
    done = doctor.run("--json", PYTHONPATH=f"{broken}:{cli_server.ROOT}")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["message"] == "cannot look at this host: the doctor itself does not work"
    assert error["details"][-1] == "ImportError: libc.so.7: not found"
    assert "reinstall" in error["remedy"]
    assert "Traceback" not in done.stderr
