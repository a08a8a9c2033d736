"""Which targets are unit files, and what a plan does with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.files import planfile
from agent.system.cancel import Cancel
from agent.units import unitfiles
from agent.units.unitfiles import Program, Role


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/etc/systemd/system/go.service", (Role.UNIT, "go.service")),
        ("/usr/lib/systemd/system/go.timer", (Role.UNIT, "go.timer")),
        ("/lib/systemd/system/go@.socket", (Role.UNIT, "go@.socket")),
        ("/run/systemd/system/srv-www.mount", (Role.UNIT, "srv-www.mount")),
        ("/etc/systemd/system/go.service.d/a.conf", (Role.DROP_IN, "go.service")),
        ("/etc/systemd/system/go@1.service.d/a.conf", (Role.DROP_IN, "go@1.service")),
        ("/etc/systemd/system/go.service.d/a.txt", (Role.OTHER, "")),
        ("/etc/systemd/system/multi-user.target.wants/go.service", (Role.OTHER, "")),
        ("/etc/systemd/system/README", (Role.OTHER, "")),
        ("/etc/systemd/network/go.network", None),
        ("/etc/systemd/system", None),
        ("/etc/systemd/system-preset/go.service", None),
        ("/opt/etc/systemd/system/go.service", None),
    ],
)
def test_classify(path: str, found: tuple[Role, str] | None) -> None:
    assert unitfiles.classify(path) == found


@pytest.mark.parametrize(
    ("unit", "template"),
    [
        ("go.service", "go.service"),
        ("go@1.service", "go@.service"),
        ("go@a.b@c.service", "go@.service"),
        ("go@.timer", "go@.timer"),
    ],
)
def test_template_of(unit: str, template: str) -> None:
    assert unitfiles.template_of(unit) == template


def make_plan(work_dir: Path) -> Path:
    rows = [
        # path, action, kind, source, mode, ours, was
        ("/etc/systemd/system/new.service", "add", "file", "new.service", 0o644, 0, None),
        ("/etc/systemd/system/same.service", "keep", "file", "same.service", 0o644, 1, "file"),
        ("/etc/systemd/system/theirs.service", "retain", "file", "x.service", 0o644, 0, "file"),
        ("/etc/systemd/system/old.service", "remove", "file", None, 0o644, 3, "file"),
        ("/etc/systemd/system/lost.service", "remove", "file", None, 0o644, 3, None),
        ("/etc/systemd/system/alias.service", "add", "link", "alias.service", None, 0, None),
        ("/etc/systemd/system/new.service.d", "mkdir", "dir", "d", 0o755, 0, None),
        ("/etc/systemd/system/new.service.d/a.conf", "replace", "file", "a", 0o644, 2, "file"),
        ("/opt/go/server", "add", "file", "server", 0o755, 0, None),
        ("/opt/go/plain", "add", "file", "plain", 0o644, 0, None),
        ("/opt/go/old", "remove", "file", None, 0o755, 3, "file"),
    ]
    path = work_dir / planfile.NAME
    with planfile.making(path, Cancel()) as plan:
        plan.executemany(
            "INSERT INTO actions (path, action, kind, source, mode, ours, was, intact)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
            rows,
        )
    return path


def test_unit_files_of_a_plan(tmp_path: Path) -> None:
    found = unitfiles.find_unit_files(make_plan(tmp_path))
    assert {
        Path(file.path).name: (file.role, file.unit, file.is_wanted, file.is_changed)
        for file in found
    } == {
        "new.service": (Role.UNIT, "new.service", True, True),
        "same.service": (Role.UNIT, "same.service", True, False),
        "theirs.service": (Role.UNIT, "theirs.service", False, False),
        "old.service": (Role.UNIT, "old.service", False, True),
        "lost.service": (Role.UNIT, "lost.service", False, False),
        "alias.service": (Role.OTHER, "", True, True),
        "a.conf": (Role.DROP_IN, "new.service", True, True),
    }
    assert {file.path for file in found if not file.source} == {
        "/etc/systemd/system/lost.service",
        "/etc/systemd/system/old.service",
    }


def test_no_plan_has_no_unit_files(tmp_path: Path) -> None:
    assert unitfiles.find_unit_files(tmp_path / planfile.NAME) == []


def test_programs_of_a_plan(tmp_path: Path) -> None:
    with planfile.opened(make_plan(tmp_path)) as plan:
        assert unitfiles.find_program(plan, "/opt/go/server") == Program(True, True)
        assert unitfiles.find_program(plan, "/opt/go/plain") == Program(True, False)
        assert not unitfiles.find_program(plan, "/opt/go/old").is_wanted
        assert not unitfiles.find_program(plan, "/opt/go/none").is_wanted


def test_look_at_sees_another_file(tmp_path: Path) -> None:
    path, gone = tmp_path / "a.service", tmp_path / "b.service"
    path.write_text("a")
    before = unitfiles.look_at([str(path), str(gone)])
    assert unitfiles.look_at(before) == before
    path.rename(gone)
    path.write_text("a")
    assert unitfiles.look_at(before) != before
