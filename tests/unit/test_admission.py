"""Which manifests a host takes, and what it says of the others."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

import pytest

from agent.formats import admission
from agent.model.errors import AgentError, Code
from agent.model.manifest import Compatible, Manifest
from agent.system import os_release

NOW = 1795608000.0  # 2026-11-25T12:00:00Z
DAY = 86400.0
SIGNED = Manifest(
    "1.214",
    "go-service",
    "default",
    built_at=NOW - DAY,
    serial=100,
    expires=NOW + DAY,
    compatible=Compatible(os=("debian-12", "debian-13"), arch=("amd64",)),
)
UNSIGNED = Manifest("1.214", "go-service")


def admit(manifest: Manifest, **changes: Any) -> None:
    given: dict[str, Any] = {
        "application": "go-service",
        "group": "default",
        "now": NOW,
        "highest_serial": 100,
        "os_id": "debian-12",
        "arch": "amd64",
        "signed": True,
    }
    admission.admit(manifest, **(given | changes))


def test_a_good_one_is_admitted() -> None:
    admit(SIGNED)
    admit(SIGNED, highest_serial=0)
    admit(dataclasses.replace(SIGNED, serial=int(NOW) + 86400))
    admit(SIGNED, now=SIGNED.expires - 1)
    admit(SIGNED, now=SIGNED.built_at - admission.CLOCK_SECONDS)  # the builder's clock is ahead
    admit(UNSIGNED, signed=False, highest_serial=0)


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (
            {"application": "shop"},
            {},
            "cannot follow the pointer of go-service: its manifest is of shop 1.214",
        ),
        (
            {"deployment_group": "canary"},
            {},
            (
                "cannot follow the pointer of go-service for the deployment group default:"
                " its manifest is for the group canary"
            ),
        ),
        (
            {"deployment_group": "canary"},
            {"signed": False},
            (
                "cannot follow the pointer of go-service for the deployment group default:"
                " its manifest is for the group canary"
            ),
        ),
        (
            {"deployment_group": ""},
            {},
            (
                "cannot follow the pointer of go-service for the deployment group default:"
                " its manifest is for no group"
            ),
        ),
        (
            {"serial": 0},
            {"highest_serial": 0},
            (
                "cannot deploy go-service 1.214: its manifest is signed and has no serial,"
                " so an old one could be put back for ever"
            ),
        ),
        (
            {"serial": 0, "expires": 0.0},
            {},
            (
                "cannot deploy go-service 1.214: its manifest is signed and has no serial or"
                " expires, so an old one could be put back for ever"
            ),
        ),
        (
            {"expires": NOW},
            {},
            (
                "cannot deploy go-service 1.214: its manifest expired 0 seconds ago"
                " (2026-11-25 12:00 UTC)"
            ),
        ),
        (
            {"expires": NOW - 3 * DAY},
            {"signed": False},
            (
                "cannot deploy go-service 1.214: its manifest expired 3 days ago"
                " (2026-11-22 12:00 UTC)"
            ),
        ),
        (
            {"built_at": NOW + 2 * DAY},
            {},
            (
                "cannot deploy go-service 1.214: it was built 2026-11-27 12:00 UTC,"
                " and this host's clock says 2026-11-25 12:00 UTC"
            ),
        ),
        (
            {"serial": 99},
            {},
            (
                "cannot deploy go-service 1.214: its manifest has the serial 99,"
                " and this host has seen 100: it is an older one, put back"
            ),
        ),
        (
            {"serial": int(NOW) + 86401},
            {},
            (
                "cannot deploy go-service 1.214: its manifest has the serial 1795694401, more than"
                " a day ahead of this host's clock: it would shut out all that comes after it"
            ),
        ),
        (
            {},
            {"os_id": "debian-11"},
            (
                "cannot deploy go-service 1.214: it is for debian-12 or debian-13,"
                " and this host is debian-11"
            ),
        ),
        (
            {},
            {"os_id": ""},
            (
                "cannot deploy go-service 1.214: it is for debian-12 or debian-13,"
                " and this host is of an unknown system"
            ),
        ),
        (
            {},
            {"arch": "arm64"},
            "cannot deploy go-service 1.214: it is for amd64, and this host is arm64",
        ),
    ],
)
def test_what_is_refused(change: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentError) as caught:
        admit(dataclasses.replace(SIGNED, **change), **given)
    assert caught.value.message == message
    assert caught.value.code is Code.MANIFEST_REFUSED
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("systems", "os_id", "admitted"),
    [
        ((), "alpine-3.20", True),
        (("debian",), "debian-12", True),
        (("debian",), "debian", True),
        (("debian-12",), "debian", False),
        (("debian-1",), "debian-12", False),
        (("debian",), "debian2-12", False),
        (("ubuntu-22.04", "debian"), "debian-13", True),
        (("ubuntu",), "debian-13", False),
    ],
)
def test_systems(systems: tuple[str, ...], os_id: str, *, admitted: bool) -> None:
    manifest = dataclasses.replace(SIGNED, compatible=Compatible(os=systems))
    if admitted:
        admit(manifest, os_id=os_id)
    else:
        with pytest.raises(AgentError):
            admit(manifest, os_id=os_id)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59, "59 seconds"), (130, "2 minutes"), (5400, "90 minutes"), (9000, "2 hours")],
)
def test_how_long_ago(seconds: float, words: str) -> None:
    with pytest.raises(AgentError, match=f"expired {words} ago"):
        admit(dataclasses.replace(SIGNED, expires=NOW - seconds))


def test_this_host() -> None:
    asked = "unset ID VERSION_ID; . /etc/os-release; echo $ID${VERSION_ID:+-$VERSION_ID}"
    assert os_release.read_os_id() == _output("sh", "-c", asked)
    assert os_release.read_arch() == _output("dpkg", "--print-architecture")


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
