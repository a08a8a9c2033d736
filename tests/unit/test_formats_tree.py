"""What an appspec says against what its bundle holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.formats import appspec

HEADER = "version: 0.0\nos: linux\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("scripts/start.sh", "conf/app.conf", "conf/deep/x.conf", "bin/app", "README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
    return tmp_path


def problems(tree: Path, text: str) -> list[str]:
    (tree / "appspec.yml").write_text(HEADER + text)
    loaded, _ = appspec.load_appspec(tree)
    return [str(problem) for problem in appspec.check_tree(loaded, tree)]


def hook(location: str) -> str:
    return f'hooks:\n  ApplicationStart:\n    - location: "{location}"\n'


def mappings(*pairs: tuple[str, str]) -> str:
    return "files:\n" + "".join(
        f"  - source: {source}\n    destination: {destination}\n" for source, destination in pairs
    )


def test_nothing_to_say(tree: Path) -> None:
    text = (
        mappings(("/", "/opt/all"), ("bin/app", "/opt/x"), ("conf", "/opt/x"))
        + "permissions:\n  - {object: /opt/x, owner: app, mode: 755}\n"
        + "  - {object: /opt/x/app, owner: app}\n  - {object: /opt/x/deep, mode: 644}\n"
        + hook("scripts/start.sh")
    )
    assert problems(tree, text) == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("scripts/gone.sh", "scripts/gone.sh is not in the bundle"),
        ("scripts/Start.sh", "is not in the bundle (did you mean scripts/start.sh?)"),
        ("Scripts/START.SH", "is not in the bundle (did you mean scripts/start.sh?)"),
        ("script/start.sh", "is not in the bundle (did you mean scripts/start.sh?)"),
        ("start.sh", "is not in the bundle (did you mean scripts/start.sh?)"),
        (r"scripts\\start.sh", "(did you mean scripts/start.sh?)"),
        ("scripts/start.sh --now", "(a location takes no arguments: write a script that gives"),
        ("scripts", "scripts is a folder; a script belongs here"),
        ("README/start.sh", "README/start.sh is not in the bundle"),
    ],
)
def test_location_that_is_not_there(tree: Path, location: str, message: str) -> None:
    (problem,) = problems(tree, hook(location))
    assert problem.startswith("appspec.yml:5:17: error: location: ")
    assert message in problem


def test_first_line_that_ends_in_cr_lf(tree: Path) -> None:
    (tree / "scripts/start.sh").write_bytes(b"#!/bin/bash\r\necho\r\n")
    (problem,) = problems(tree, hook("scripts/start.sh"))
    assert "scripts/start.sh begins with a #! line that ends in CR LF" in problem
    (tree / "scripts/start.sh").write_bytes(b"echo\r\n")
    assert problems(tree, hook("scripts/start.sh")) == []


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("dist", ""),
        ("Conf/app.conf", "(did you mean conf/app.conf?)"),
        ("conf/*.conf", "(patterns are not expanded: name the folder)"),
    ],
)
def test_source_that_is_not_there(tree: Path, source: str, hint: str) -> None:
    expected = f"appspec.yml:4:13: error: source: {source} is not in the bundle {hint}".rstrip()
    assert problems(tree, mappings((source, "/opt/app"))) == [expected]


def test_destination_that_ends_in_the_files_name(tree: Path) -> None:
    (problem,) = problems(tree, mappings(("bin/app", "/opt/app")))
    assert "5:18: warning: destination: becomes a folder; the file will be /opt/app/app" in problem
    assert "(if that is not meant, write /opt)" in problem
    assert problems(tree, mappings(("conf", "/etc/conf"))) == []


@pytest.mark.parametrize("other", ["/opt/app", "/opt/app/conf"])
def test_destination_that_others_use_as_a_folder(tree: Path, other: str) -> None:
    assert problems(tree, mappings(("bin/app", "/opt/app"), ("conf", other))) == []
    assert len(problems(tree, mappings(("bin/app", "/opt/app"), ("conf", "/opt/app2")))) == 1


def test_shared_folder(tree: Path) -> None:
    (problem,) = problems(tree, mappings(("conf", "/etc")))
    assert "5:18: warning: destination: /etc is shared with others" in problem
    assert problems(tree, mappings(("conf/app.conf", "/etc"))) == []


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([("README", "/a"), ("README", "/a")], "/a/README"),
        ([("conf", "/a"), ("conf/app.conf", "/a")], "/a/app.conf"),
        ([("conf/app.conf", "/a"), ("conf", "/a")], "/a/app.conf"),
        ([("conf", "/a"), ("conf", "/a")], "/a/app.conf"),
        ([("/", "/a"), ("scripts", "/a/scripts")], "/a/scripts/start.sh"),
        ([("scripts", "/a/scripts"), ("/", "/a")], "/a/scripts/start.sh"),
        ([("/", "/a"), ("conf/deep", "/a/conf")], ""),
        ([("conf", "/a"), ("scripts", "/a")], ""),
        ([("README", "/a"), ("README", "/b")], ""),
    ],
)
def test_two_sources_for_one_destination(
    tree: Path, pairs: list[tuple[str, str]], found: str
) -> None:
    expected = f"files, entry 2: installs {found}, which an earlier entry installs already"
    result = problems(tree, mappings(*pairs))
    assert [expected in problem for problem in result] == ([True] if found else [])


def permission(text: str) -> str:
    return mappings(("bin/app", "/opt/x"), ("conf", "/etc/x")) + f"permissions: [{{{text}}}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("object: /srv, mode: 755", "nothing of this bundle is installed at /srv or below"),
        ("object: /etc/x/gone, mode: 755", "nothing of this bundle is installed at /etc/x/gone"),
        ("object: /opt/x/app, mode: 755, type: [directory]", "/opt/x/app is a file, so this sets"),
        ("object: /opt/x/app, mode: 755, pattern: a*", "is a file, which takes no pattern but **"),
        ("object: /etc/x/app.conf, mode: 755, except: [a]", "is a file, which takes no except"),
        ("object: /etc/x, mode: 644", "644 also applies to folders, which only root can then"),
        ("object: /etc, mode: 644", "644 also applies to folders, which only root can then"),
        ("object: /etc/x/deep, mode: 644", ""),
        ("object: /etc/x, mode: 644, type: [file]", ""),
        ("object: /opt/x/app, mode: 644", ""),
        ("object: /, mode: 755", ""),
    ],
)
def test_permissions(tree: Path, text: str, message: str) -> None:
    result = problems(tree, permission(text))
    assert [message in problem for problem in result] == ([True] if message else [])


def test_default_entries_on_a_file(tree: Path) -> None:
    text = permission('object: /opt/x/app, acls: ["d:u:a:r"]')
    assert any("which takes no default entries" in problem for problem in problems(tree, text))


def test_a_fifo_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "scripts/fifo")
    assert problems(tree, hook("scripts/fifo")) == []
