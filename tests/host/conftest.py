"""Real booted Debian hosts for the tests in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import base, lab
from tests.lab.hosts import Host

_FOLDER = Path(__file__).resolve().parent
_TEST_SECONDS = 120
_JOURNAL_LINES = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = lab.missing(is_root=os.geteuid() == 0)
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


@pytest.fixture(params=base.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Debian 12, and Debian 13."""
    return str(request.param)


@pytest.fixture
def bare_host(own_lab: lab.Lab, suite: str) -> Iterator[Host]:
    """A fresh host, booted, without anything of ours: a boot is quicker than a clean-up."""
    host = own_lab.host(suite, base.ensure_base(suite))
    host.boot()
    yield host
    host.discard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What a failed test's host has in its journal is the first thing one wants to see."""
    report: pytest.TestReport = yield
    fixtures = getattr(item, "funcargs", {})
    hosts = [each for each in fixtures.values() if isinstance(each, Host)]
    if report.failed and hosts:
        for host in hosts:
            lines = [str(entry.get("MESSAGE")) for entry in host.journal()]
            report.sections.append((f"journal of {host.name}", "\n".join(lines[-_JOURNAL_LINES:])))
    return report
