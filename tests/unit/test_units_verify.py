"""What is made of the lines of systemd-analyze verify, of versions 252 and 257."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.units import verify
from agent.units.unitfiles import Role, UnitFile
from agent.units.verify import Finding, Kind

PLACES = {
    "/s/go.service": "/etc/systemd/system/go.service",
    "/s/go.service.d/a.conf": "/etc/systemd/system/go.service.d/a.conf",
    "/s/app@.service": "/etc/systemd/system/app@.service",
}
UNITS = ["app@.service", "go.service"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        (
            ["/s/go.service:3: Unknown key 'Foo' in section [Service], ignoring."],
            [
                (
                    Kind.IGNORED,
                    (
                        "/etc/systemd/system/go.service:3:"
                        " Unknown key 'Foo' in section [Service], ignoring."
                    ),
                )
            ],
        ),
        (
            ["/s/go.service:4: Unknown section 'Bogus'. Ignoring."],
            [
                (
                    Kind.IGNORED,
                    "/etc/systemd/system/go.service:4: Unknown section 'Bogus'. Ignoring.",
                )
            ],
        ),
        (
            [
                "/s/go.service.d/a.conf:2: Failed to parse service type, ignoring: nonsense",
                "/usr/lib/systemd/system/other.service:9: Unknown key 'X' in section [Unit]",
                "other.service: Command /usr/bin/other is not executable: No such file",
                "Unit other.service has a bad unit file setting.",
            ],
            [
                (
                    Kind.IGNORED,
                    (
                        "/etc/systemd/system/go.service.d/a.conf:2:"
                        " Failed to parse service type, ignoring: nonsense"
                    ),
                )
            ],
        ),
        (
            [
                "go.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.",
                "Unit go.service has a bad unit file setting.",
            ],
            [
                (
                    Kind.REFUSED,
                    (
                        "systemd refuses go.service:"
                        " Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing."
                    ),
                )
            ],
        ),
        (
            [
                "/s/go.service:2: Neither a valid executable name nor an absolute path: bin/true",
                "go.service: Unit configuration has fatal error, unit will not be started.",
                "Unit go.service has a bad unit file setting.",
            ],
            [
                (
                    Kind.REFUSED,
                    (
                        "systemd refuses go.service: /etc/systemd/system/go.service:2:"
                        " Neither a valid executable name nor an absolute path: bin/true;"
                        " Unit configuration has fatal error, unit will not be started."
                    ),
                )
            ],
        ),
        (
            [
                "/s/go.service:1: Invalid section header '[Service'",
                (
                    "Unit go.service failed to load properly, please adjust/correct and reload"
                    " service manager: Bad message"
                ),
            ],
            [
                (
                    Kind.REFUSED,
                    (
                        "systemd refuses go.service:"
                        " /etc/systemd/system/go.service:1: Invalid section header '[Service'"
                    ),
                )
            ],
        ),
        (
            ["Unit go.service is masked."],
            [(Kind.REFUSED, "go.service is empty: systemd masks it")],
        ),
        (
            ["go.service: Failed to create go.service/start: Unit no.service not found."],
            [(Kind.NO_UNIT, "go.service: Unit no.service not found.")],
        ),
    ],
)
def test_judge(lines: list[str], found: list[tuple[Kind, str]]) -> None:
    assert [(each.kind, each.text) for each in verify.judge(lines, PLACES, UNITS)] == found


@pytest.mark.parametrize("unit", ["app@i.service", "app@test-instance.service"])
def test_a_template_is_verified_by_some_name(unit: str) -> None:
    line = f"{unit}: Command /opt/app is not executable: No such file or directory"
    (found,) = verify.judge([line], PLACES, UNITS)
    assert (found.kind, found.unit, found.subject) == (Kind.NO_PROGRAM, "app@.service", "/opt/app")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: unit files are not verified")
    tree = tmp_path / "release"
    tree.mkdir()
    return tree


def unit_file(tree: Path, name: str, text: str) -> UnitFile:
    source = name.replace("/", "-")
    (tree / source).write_text(text)
    is_drop_in = name.endswith(".conf")
    return UnitFile(
        path=f"/etc/systemd/system/{name}",
        role=Role.DROP_IN if is_drop_in else Role.UNIT,
        unit=name.partition(".d/")[0] if is_drop_in else name,
        source=source,
        is_wanted=True,
        is_changed=True,
    )


def run(tree: Path, *files: UnitFile) -> list[Finding]:
    scratch = tree.parent / "scratch"
    found = verify.verify(files, tree, scratch)
    assert not scratch.exists()
    return found


def test_verify_what_is_not_installed_yet(tree: Path) -> None:
    good = unit_file(tree, "units-test.service", "[Service]\nExecStart=/bin/true\n")
    assert run(tree, good) == []
    missing = unit_file(tree, "units-test.service", "[Service]\nExecStart=/opt/no/such\n")
    (found,) = run(tree, missing)
    assert (found.kind, found.subject) == (Kind.NO_PROGRAM, "/opt/no/such")


def test_verify_with_drop_in_of_the_same_bundle(tree: Path) -> None:
    unit = unit_file(tree, "units-test.service", "[Service]\nExecStart=/bin/true\n")
    drop_in = unit_file(tree, "units-test.service.d/a.conf", "[Service]\nExecStart=/bin/true\n")
    (found,) = run(tree, unit, drop_in)
    assert found.kind is Kind.REFUSED
    assert "more than one ExecStart= setting" in found.text


def test_verify_units_that_need_each_other(tree: Path) -> None:
    socket = unit_file(tree, "units-test.socket", "[Socket]\nListenStream=/run/x\n")
    service = unit_file(tree, "units-test.service", "[Service]\nExecStart=/bin/true\n")
    assert run(tree, socket, service) == []
    (found,) = run(tree, socket)
    assert found.kind is Kind.NO_UNIT
