"""Real booted Debian hosts for the tests in this folder."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.host import fleet
from tests.host.bundles import Web
from tests.host.deb_host import DebHost
from tests.host.fleet import FleetHost
from tests.lab import base, commands, lab
from tests.lab.hosts import Host, NotBooted

NEWER = "99.0"
T = TypeVar("T", bound=DebHost)

_FOLDER = Path(__file__).resolve().parent
_TEST_SECONDS = 120
_BUILD_SECONDS = 120
_JOURNAL_LINES = 80


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = base.missing()
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker(pytest.mark.host)
            # fixtures have limits of their own: the first one on a machine builds Debian
            item.add_marker(pytest.mark.timeout(_TEST_SECONDS, func_only=True))
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"real Debian hosts: {missing}"))


@pytest.fixture(scope="session")
def own_lab() -> Iterator[lab.Lab]:
    """The lab of this process: workers of pytest-xdist have one each."""
    with lab.Lab() as own:
        yield own


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Path]:
    """Our .deb, built from this checkout: "this" version, and a "newer" one."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent  # shared by the workers: the first one builds
    versions: dict[str, list[str]] = {"this": [], "newer": ["--version", NEWER]}
    with (folder / "deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, options in versions.items():
            if not (folder / name).exists():
                build = [base.ROOT / "packaging/build-deb", *options, "--output", folder / name]
                subprocess.run(build, check=True, timeout=_BUILD_SECONDS)
    return {name: next((folder / name).glob("*.deb")) for name in versions}


@pytest.fixture(scope="session")
def disks() -> dict[str, list[Path]]:
    """Layers of disks that are ready made, by what is on them. Filled by the fixtures below."""
    return {}


@pytest.fixture(scope="session", params=base.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Debian 12, and Debian 13; of the session, so that a worker begins with all tests of one."""
    return str(request.param)


@pytest.fixture
def bare_host(own_lab: lab.Lab, suite: str) -> Iterator[Host]:
    """A fresh host, booted, without anything of ours: a boot is quicker than a clean-up."""
    host = own_lab.host(suite, base.ensure_base(suite))
    host.boot()
    yield host
    host.discard()


@pytest.fixture
def deb_host(
    own_lab: lab.Lab, suite: str, debs: dict[str, Path], disks: dict[str, list[Path]]
) -> Iterator[DebHost]:
    """A fresh host on which the .deb was installed before it was booted the last time."""
    host = DebHost(own_lab.host(suite, *_installed(own_lab, suite, debs, disks)))
    yield _booted(host)
    host.host.discard()


@pytest.fixture
def serving_host(
    own_lab: lab.Lab,
    suite: str,
    by: str,
    debs: dict[str, Path],
    disks: dict[str, list[Path]],
) -> Iterator[DebHost]:
    """The same, and revision 1 of the web service is deployed and serves. by: see Web."""
    name = f"{suite}, web 1 by {by}"
    if name not in disks:
        layers = _installed(own_lab, suite, debs, disks)
        first = _booted(DebHost(own_lab.host(suite, *layers)))
        first.deploy_good(Web("1", by=by))
        first.host.power_off()
        disks[name] = [first.host.unplug(), *layers]
    host = _booted(DebHost(own_lab.host(suite, *disks[name])))
    host.wait_until_serving("1")
    yield host
    host.host.discard()


@pytest.fixture(scope="session")
def consul_of_lab(own_lab: lab.Lab) -> Iterator[fleet.Server]:
    """Consul's server, for all hosts."""
    server = fleet.Server(own_lab)
    yield server
    server.close()


@pytest.fixture
def fleet_host(
    own_lab: lab.Lab,
    suite: str,
    consul_of_lab: fleet.Server,
    debs: dict[str, Path],
    disks: dict[str, list[Path]],
) -> Iterator[FleetHost]:
    """With a Consul agent, and revision 1 serves and is in its catalogue."""
    name = f"{suite}, web 1 in Consul"
    if name not in disks:
        layers = _installed(own_lab, suite, debs, disks)
        first = _booted(FleetHost(own_lab.host(suite, *layers), consul_of_lab))
        first.install_consul()
        first.deploy_good(fleet.web("1"))
        first.forget_name()
        first.host.power_off()
        disks[name] = [first.host.unplug(), *layers]
    host = _booted(FleetHost(own_lab.host(suite, *disks[name]), consul_of_lab))
    host.assert_in_traffic("1")
    yield host
    host.host.discard()


@pytest.fixture
def by() -> str:
    """How revision 1 of a serving host was deployed; a test may say otherwise."""
    return "hooks"


def _installed(
    own_lab: lab.Lab, suite: str, debs: dict[str, Path], disks: dict[str, list[Path]]
) -> list[Path]:
    """The layers of a disk with the .deb on it."""
    if suite not in disks:
        bare = base.ensure_base(suite)
        host = own_lab.host(suite, bare)
        host.boot()
        host.install(debs["this"])
        host.power_off()
        disks[suite] = [host.unplug(), bare]
    return disks[suite]


def _booted(host: T) -> T:
    host.host.boot()
    host.wait_for_agent()
    return host


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What a failed test's host has in its journal is the first thing one wants to see."""
    report: pytest.TestReport = yield
    fixtures = getattr(item, "funcargs", {}).values()
    hosts = [each for each in fixtures if isinstance(each, Host)]
    hosts += [each.host for each in fixtures if isinstance(each, DebHost)]
    if report.failed:
        for host in hosts:
            report.sections.append((f"journal of {host.name}", _last_entries(host)))
    return report


def _last_entries(host: Host) -> str:
    try:
        entries = host.journal()[-_JOURNAL_LINES:]
    except (commands.CommandFailed, NotBooted, OSError, subprocess.SubprocessError) as error:
        return f"cannot be read: {error}"
    return "\n".join(f"{each.get('SYSLOG_IDENTIFIER')}: {each.get('MESSAGE')}" for each in entries)
