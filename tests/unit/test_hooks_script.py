"""How the script of a hook is found in the release, and what is to run it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.hooks import script
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError, Code

ELF = b"\x7fELF" + bytes(60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "scripts").mkdir(parents=True)
    return tree


def put(tree: Path, text: bytes, *, mode: int = 0o644) -> str:
    path = tree / "scripts/run"
    path.write_bytes(text)
    path.chmod(mode)
    return "scripts/run"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"#!/bin/sh\n", ("/bin/sh",)),
        (b"#! \t/bin/sh -e \t\n", ("/bin/sh", "-e")),
        (b"#!/usr/bin/env -S python3 -I  -u\n", ("/usr/bin/env", "-S python3 -I  -u")),
        (b"#!/bin/sh", ("/bin/sh",)),
        (b"#!\necho", ("/bin/bash",)),
        (b"echo", ("/bin/bash",)),
        (b"", ("/bin/bash",)),
        (b"\xef\xbb\xbf#!/bin/sh\n", ("/bin/bash",)),
    ],
)
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_interpreter_is_that_of_the_first_line(
    tree: Path, text: bytes, words: tuple[str, ...], mode: int
) -> None:
    found = script.find_script(tree, put(tree, text, mode=mode))
    assert found.argv == (*words, str(tree / "scripts/run"))


def test_binary_is_run_itself_if_it_may_be(tree: Path) -> None:
    found = script.find_script(tree, put(tree, ELF, mode=0o755))
    assert found.argv == (str(tree / "scripts/run"),)
    error = refused(tree, put(tree, ELF))
    assert "executable bit" in error.message
    assert "chmod +x" in error.remedy


def test_missing_interpreter_and_crlf_are_named(tree: Path) -> None:
    assert "/opt/ruby9" in refused(tree, put(tree, b"#!/opt/ruby9 -w\n")).message
    error = refused(tree, put(tree, b"#!/bin/bash\r\necho\r\n"))
    assert "'/bin/bash\\r'" in error.message
    assert ".gitattributes" in error.remedy
    assert "#!/usr/bin/env bash" in refused(tree, put(tree, b"#!bash\n")).remedy


def test_name_in_another_case_is_suggested(tree: Path) -> None:
    put(tree, b"")
    assert "run is there" in refused(tree, "scripts/Run").remedy
    assert "no such file" in refused(tree, "scripts/other").message
    assert "no such file" in refused(tree, "nowhere/at/all").message


@pytest.mark.parametrize("location", ["../outside", "scripts/../../outside", "link", "linked/x"])
def test_nothing_outside_the_release_is_run(tree: Path, location: str) -> None:
    (tree.parent / "outside").write_text("")
    (tree.parent / "x").write_text("")
    (tree / "link").symlink_to("../outside")
    (tree / "linked").symlink_to(tree.parent)
    assert "out of the release" in refused(tree, location).message


def test_link_inside_the_release_is_followed_and_its_name_kept(tree: Path) -> None:
    put(tree, b"#!/bin/sh\n")
    (tree / "stop").symlink_to("scripts/run")
    assert script.find_script(tree, "stop").path == str(tree / "stop")
    assert script.find_script(tree, " /stop ").path == str(tree / "stop")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_only_a_file_is_a_script(tree: Path, make) -> None:
    make(tree / "odd")
    assert "not a file" in refused(tree, "odd").message


def test_check_scripts_tells_all_at_once(tree: Path) -> None:
    event = LifecycleEvent.APPLICATION_START
    hooks = [Hook(event, put(tree, b"")), Hook(event, "a"), Hook(event, "b"), Hook(event, "a")]
    problems = script.check_scripts(tree, hooks)
    assert len(problems) == 2
    assert all(each.startswith("ApplicationStart: cannot run ") for each in problems)


def refused(tree: Path, location: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        script.find_script(tree, location)
    assert caught.value.code is Code.HOOK_NOT_RUNNABLE
    return caught.value
