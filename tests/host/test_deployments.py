"""Good, better, broken: on real hosts of both Debians, from the installed .deb."""

from __future__ import annotations

import pytest

from tests.host.bundles import Web
from tests.host.deb_host import DebHost

pytestmark = pytest.mark.slow
WAYS = ["hooks", "unit"]


@pytest.mark.parametrize("by", WAYS)
def test_good_better_broken(deb_host: DebHost, by: str) -> None:
    deb_host.deploy_good(Web("1.214", by=by))
    deb_host.deploy_good(Web("1.215", by=by))
    before = deb_host.installed()
    view = deb_host.deploy(Web("1.216", by=by, reports="1.215"))
    assert view["outcome"] == "rolled_back"
    assert view["failure"]["code"] == "version-mismatch"
    assert deb_host.serving() == "1.215"
    assert deb_host.installed() == before
    assert "1.215" in deb_host.agentctl("status").stdout
