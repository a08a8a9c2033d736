"""The example in examples/go-service: its bundles, what its binary does, and its scripts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.system import systemd
from tests import go_service
from tests.go_service import EXAMPLE, Broken

# The first build on a machine compiles Go's standard library: 26 s on two busy cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STYLES = ("services", "aws")
GOOD = '{\n  "Database": "Good",\n  "Status for SQS queue": "Healthy",\n  "version": "1.214"\n}\n'
SECONDS = 20.0


def unpack(bundle: Path, folder: Path) -> Path:
    """As a release: zipfile drops modes."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
        for entry in archive.infolist():
            (folder / entry.filename).chmod(entry.external_attr >> 16)
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go-service")
    return unpack(go_service.build_bundle(folder, "1.214", style="aws"), folder / "release")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@dataclass
class Running:
    """The service's process, started as systemd would, with what it said to systemd so far."""

    process: subprocess.Popen[bytes]
    systemd: socket.socket
    port: int

    def ask(self) -> tuple[int, str]:
        """HTTP status and body of the status endpoint."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextlib.contextmanager
def running(release: Path, state: Path, **environment: str) -> Iterator[Running]:
    """Give the service once it has said READY=1."""
    name = f"\0go-service-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(SECONDS)
        variables = {
            "LISTEN": "127.0.0.1:0",
            "MIGRATIONS": str(release / "migrations"),
            "NOTIFY_SOCKET": name.replace("\0", "@"),
            "STATE_DIRECTORY": str(state),
            **environment,
        }
        process = subprocess.Popen([release / "go-service"], env=variables, stderr=subprocess.PIPE)
        try:
            assert systemd.recv(1000) == b"READY=1\nSTATUS=version 1.214"
            assert process.stderr
            said = process.stderr.readline().decode()
            found = re.fullmatch(r"version 1\.214 listens on 127\.0\.0\.1:(\d+)\n", said)
            assert found, said
            yield Running(process, systemd, int(found[1]))
        finally:
            process.kill()
            process.communicate(timeout=SECONDS)


@pytest.mark.parametrize("style", STYLES)
def test_lint_has_nothing_to_say(tmp_path: Path, style: str) -> None:
    bundle = go_service.build_bundle(tmp_path, "1.214", style=style)
    done = run(sys.executable, "-m", "agent.cli.main", "lint", "--json", bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    problems = [p["message"] for p in json.loads(done.stdout)["problems"]]
    assert problems == []


# On a host where scripts/create-user has run, which is nobody's own machine.
WITH_ITS_USER = """
grep -v '^go-service:' /etc/passwd >"$1"
echo 'go-service:x:999:999::/var/lib/go-service:/usr/sbin/nologin' >>"$1"
mount --bind "$1" /etc/passwd
shift
exec "$@"
"""


@pytest.mark.root
@pytest.mark.parametrize("style", STYLES)
def test_plan_has_nothing_to_say(tmp_path: Path, style: str) -> None:
    bundle = go_service.build_bundle(tmp_path, "1.214", style=style)
    settings = tmp_path / "agent.yaml"
    settings.write_text(f"state_dir: {tmp_path}/state\nrun_dir: {tmp_path}/run\n")
    plan = (sys.executable, "-m", "agent.cli.main", "plan", "--json", "--foreground")
    inside = ("bash", "-euc", WITH_ITS_USER, "-", tmp_path / "passwd")
    done = run(
        *("unshare", "--mount", "--", *inside, *plan, "--config", settings, bundle),
    )
    answer = json.loads(done.stdout)["plan"]
    problems = answer["problems"]
    if style == "services" and not systemd.is_booted():  # and rightly so; tests/host has it whole
        assert [text for text in problems if "cannot manage go-service.service" in text]
        problems = problems[1:]
    assert (problems, answer["conflicts"], answer["warnings"]) == ([], [], []), done.stderr
    added = {change["path"] for change in answer["changes"] if change["action"] == "add"}
    assert {"/etc/systemd/system/go-service.service", "/opt/go-service/go-service"} <= added


@pytest.mark.parametrize("style", STYLES)
def test_the_same_source_gives_the_same_bytes(tmp_path: Path, style: str) -> None:
    bundles = []
    for name, umask in (("first", 0o022), ("second", 0o077)):
        bundle = tmp_path / f"{name}.zip"
        arguments = ("VERSION=1.214", f"STYLE={style}", f"OUTPUT={bundle}")
        done = go_service.make("bundle", *arguments, f"BUILD={tmp_path / name}", umask=umask)
        assert done.returncode == 0, done.stderr
        bundles.append(bundle.read_bytes())
    assert bundles[0] == bundles[1]


def test_a_bundle_needs_a_version_and_a_style_that_exists(tmp_path: Path) -> None:
    for wrong, message in (
        (["VERSION="], "which version?"),
        (["VERSION=1.214", "STYLE=other"], "STYLE is services or aws"),
    ):
        done = go_service.make("bundle", *wrong, f"BUILD={tmp_path}/b", f"OUTPUT={tmp_path}/x.zip")
        assert done.returncode == 2
        assert message in done.stderr
    assert not (tmp_path / "x.zip").exists()


def test_source_is_as_gofmt_and_vet_want_it() -> None:
    sources = sorted(EXAMPLE.glob("*.go"))
    assert sources
    done = run("gofmt", "-l", *sources)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = go_service.make("vet")
    assert done.returncode == 0, done.stderr


def test_the_service_from_migration_to_stop(tmp_path: Path, release: Path) -> None:
    state = tmp_path / "state"
    with running(release, state) as service:
        code, body = service.ask()
        assert (code, json.loads(body)["Database"]) == (503, "Bad")  # nothing is applied yet

        migrate = (release / "go-service", "migrate", release / "migrations")
        done = run(*migrate, STATE_DIRECTORY=str(state))
        names = ["0001_create_orders.sql", "0002_add_orders_note.sql"]
        assert done.stdout.splitlines() == [f"applied {name}" for name in names], done.stderr
        assert run(*migrate, STATE_DIRECTORY=str(state)).stdout == "nothing to apply\n"
        assert service.ask() == (200, GOOD)

        idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
        with contextlib.closing(
            idle
        ):  # a client that keeps its connection does not hold up the stop
            idle.request("GET", "/status")
            idle.getresponse().read()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(SECONDS) == 0
        assert service.systemd.recv(1000) == b"STOPPING=1"


def test_migrations(tmp_path: Path, release: Path) -> None:
    folder, state = tmp_path / "migrations", tmp_path / "state"
    shutil.copytree(release / "migrations", folder)
    variables = {"MIGRATIONS": str(folder), "STATE_DIRECTORY": str(state)}
    migrate = (release / "go-service", "migrate", folder)
    assert run(*migrate, **variables).returncode == 0
    with running(release, state, MIGRATIONS=str(folder)) as service:
        (folder / "0003_next.sql").write_text("SELECT 1;\n")
        assert service.ask()[0] == 503  # behind
        assert run(*migrate, **variables).stdout == "applied 0003_next.sql\n"
        (folder / "0003_next.sql").unlink()
        assert service.ask() == (200, GOOD)  # ahead, as after a rollback

        (folder / "0001_create_orders.sql").write_text("SELECT 2;\n")
        done = run(*migrate, **variables)
        assert done.returncode == 1
        assert "0001_create_orders.sql was changed after it was applied" in done.stderr
        assert service.ask()[0] == 503


def test_a_queue_that_nobody_answers_for(tmp_path: Path, release: Path) -> None:
    with socket.socket() as closed:  # bound, so that nobody takes the port; but deaf
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with running(release, tmp_path, QUEUE_ADDRESS=address) as service:
            code, body = service.ask()
            assert (code, json.loads(body)["Status for SQS queue"]) == (503, "Unreachable")
            closed.listen()
            assert json.loads(service.ask()[1])["Status for SQS queue"] == "Healthy"


def test_an_address_that_cannot_be_had(release: Path) -> None:
    done = run(release / "go-service", LISTEN="nowhere")
    assert (done.returncode, done.stderr.startswith("go-service: listen tcp")) == (1, True)


def verify_unit(unit: Path, folder: Path, binary: Path) -> str:
    """What systemd-analyze finds wrong with a unit whose binary is not installed here."""
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/go-service/go-service", str(binary)))
    done = run("systemd-analyze", "verify", "--man=no", copy)
    return done.stdout + done.stderr


@pytest.mark.skipif(
    not (shutil.which("systemd-analyze") and Path("/lib/systemd/system/sysinit.target").exists()),
    reason="no systemd here: the unit files are not verified",
)
def test_unit_file(tmp_path: Path, release: Path) -> None:
    assert verify_unit(release / "go-service.service", tmp_path, release / "go-service") == ""
    for broken in (Broken.UNHEALTHY, Broken.NO_START, Broken.CRASH_LOOP):
        bundle = go_service.build_bundle(tmp_path, "1.214", broken=broken)
        unit = unpack(bundle, tmp_path / broken.name) / "go-service.service"
        assert verify_unit(unit, tmp_path, release / "go-service") == ""
        assert unit.read_text() != (release / "go-service.service").read_text()


def test_a_bundle_that_was_stamped_with_another_version(tmp_path: Path) -> None:
    bundle = go_service.build_bundle(tmp_path, "1.216", reported_version="1.215")
    folder = unpack(bundle, tmp_path / "release")
    assert json.loads((folder / "release.json").read_text())["version"] == "1.216"
    assert run(folder / "go-service", "version").stdout == "1.215\n"


# The address of the script is fixed; in a network of its own nobody else is there.
IN_OWN_NETWORK = """
ip link set lo up
"$1/go-service" & service=$!
PATH=$2:$PATH; status=0
"$1/scripts/validate" || status=$?
kill "$service"; wait "$service"
exit "$status"
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ("1.214", 0, "go-service 1.214 is up and well"),
        ("1.21", 1, "does not prove version 1.21 in 30 tries; it says: {"),
    ],
)
def test_validate_script(tmp_path: Path, release: Path, version: str, code: int, said: str) -> None:
    state = tmp_path / "state"
    done = run(
        release / "go-service", "migrate", release / "migrations", STATE_DIRECTORY=str(state)
    )
    assert done.returncode == 0
    copy = tmp_path / "release"
    shutil.copytree(release, copy)
    (copy / "release.json").write_text(json.dumps({"version": version}))
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name in ("sleep", "journalctl"):  # the script's pauses take no time here
        (fakes / name).write_text("#!/bin/sh\n")
        (fakes / name).chmod(0o755)
    done = run(
        *("unshare", "--net", "--", "bash", "-euc", IN_OWN_NETWORK, "-", copy, fakes),
        LISTEN="127.0.0.1:8080",
        MIGRATIONS=str(release / "migrations"),
        STATE_DIRECTORY=str(state),
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
