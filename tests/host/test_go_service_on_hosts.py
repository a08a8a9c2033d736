"""The Go example on real hosts: a bundle of AWS hooks alone, and one with `services:`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import go_service
from tests.go_service import EXAMPLE, Broken
from tests.host.deb_host import DebHost

# The first Go build on a machine compiles the standard library.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
_STATUS = "http://127.0.0.1:8080/status"


def deploy(host: DebHost, bundle: Path) -> dict[str, Any]:
    path = f"/srv/{bundle.name}"
    host.host.path("/srv").joinpath(bundle.name).write_bytes(bundle.read_bytes())
    done = host.agentctl("deploy", path, "--json")
    assert done.stdout, done.stderr
    return host.deployment(json.loads(done.stdout)["deployment"]["id"])


def answer(host: DebHost) -> dict[str, str]:
    found: dict[str, str] = json.loads(host.host.output("curl", "--silent", _STATUS))
    return found


@pytest.mark.parametrize("style", ["aws", "services"])
def test_good_better_broken(deb_host: DebHost, tmp_path: Path, style: str) -> None:
    if style == "services":
        script = (EXAMPLE / "scripts" / "create-user").read_text()
        deb_host.host.run("bash", "-s", stdin=script)
    for version in ("1.214", "1.215"):
        view = deploy(deb_host, go_service.build_bundle(tmp_path, version, style=style))
        assert view["outcome"] == "succeeded", view["failure"]
        assert answer(deb_host) == {
            "Database": "Good",
            "Status for SQS queue": "Healthy",
            "version": version,
        }
    assert deb_host.show("go-service", "UnitFileState") == "enabled"
    no_start = go_service.build_bundle(tmp_path, "1.216", style=style, broken=Broken.NO_START)
    view = deploy(deb_host, no_start)
    assert view["outcome"] == "rolled_back", view["failure"]
    assert answer(deb_host)["version"] == "1.215"
    assert deb_host.show("go-service", "UnitFileState") == "enabled"
    assert "nowhere" not in deb_host.host.output("systemctl", "cat", "go-service.service")
