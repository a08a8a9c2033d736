"""What stands between PID 1 and a hook, run without PID 1."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from agent.hooks import relay
from agent.system import processes
from agent.system.process import Command
from tests.waiting import wait_until

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "WORD": "$HOME `id` 'x' \" \\ %n = "}


def start(*argv: str) -> subprocess.Popen[bytes]:
    """Run a command as a unit would."""
    return subprocess.Popen(
        relay.wrap(Command(argv, ENVIRONMENT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            "PATH": "/nowhere",
            "LEAK": "of PID 1",
            "BASH_ENV": "/dev/stdin",
            "SHELLOPTS": "xtrace",
        },
        start_new_session=True,
    )


def output(*argv: str) -> tuple[int, str]:
    """What becomes of a command, and all that it wrote."""
    started = start(*argv)
    said, _ = started.communicate(timeout=5)
    return started.returncode, said.decode()


def test_exactly_its_environment() -> None:
    code, said = output("/usr/bin/env", "-0")
    assert code == 0
    expected = {f"{name}={value}" for name, value in ENVIRONMENT.items()}
    assert set(said.split("\0")) - {""} == expected


def test_words_arrive_as_they_are() -> None:
    words = ["$HOME", "${X}", "$$", "%n", "a b", "'", '"', "\\", "*", "-n", "=", "", "\n"]
    code, said = output("/usr/bin/printf", "<%s>", *words)
    assert (code, said) == (0, "".join(f"<{word}>" for word in words))


def test_only_its_three_descriptors() -> None:
    _, said = output("/bin/sh", "-c", "ls /proc/$$/fd")
    assert said.split() == ["0", "1", "2"]


@pytest.mark.parametrize("code", [0, 1, 75, 126, 127, 200, 255])
def test_exit_code(code: int) -> None:
    assert output("/bin/sh", "-c", f"exit {code}") == (code, "")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGKILL", "SIGPIPE", "SIGTERM", "SIGSEGV"])
def test_signal(name: str) -> None:
    script = f"ulimit -c 0; kill -{name.removeprefix('SIG')} $$"
    assert output("/bin/sh", "-c", script) == (-signal.Signals[name], "")


def test_command_that_is_not_there_or_cannot_be_executed(tmp_path: Path) -> None:
    assert output(str(tmp_path / "none"))[0] == 127
    assert output("/etc/passwd")[0] == 126


def test_signals_have_their_defaults() -> None:
    _, said = output("/bin/grep", "SigIgn", "/proc/self/status")
    ignored = int(said.split()[1], 16)
    # beyond 31 are the C library's own, which no shell can name
    assert ignored & (2**31 - 1) == 0


def test_equals_sign_in_the_path(tmp_path: Path) -> None:
    shutil.copy("/bin/echo", tmp_path / "a=b")
    assert output(str(tmp_path / "a=b"), "said") == (0, "said\n")


def test_both_streams_in_their_order_and_opened_again() -> None:
    script = "echo 1; echo 2 >&2; echo 3 >/dev/stdout; echo 4 >/dev/stderr; printf 5"
    assert output("/bin/sh", "-c", script) == (0, "1\n2\n3\n4\n5")


def test_a_tee_ends_its_work(tmp_path: Path) -> None:
    script = f"exec > >(tee {tmp_path}/copy) 2>&1; echo why it failed; exit 7"
    assert output("/bin/bash", "-c", script) == (7, "why it failed\n")
    assert (tmp_path / "copy").read_text() == "why it failed\n"


def test_term_lets_it_clean_up_and_say_so() -> None:
    script = (
        "trap 'echo cleaning; exit 9' TERM; echo ready; for _ in $(seq 999); do sleep .01; done"
    )
    with start("/bin/sh", "-c", script) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        os.killpg(started.pid, signal.SIGTERM)  # as PID 1 does: to all of them
        assert started.stdout.read().endswith(b"cleaning\n")
        assert started.wait(5) == 9


def test_what_it_leaves_may_go_on_writing(tmp_path: Path) -> None:
    waits = f"for _ in $(seq 999); do [ -e {tmp_path}/go ] && break; sleep 0.01; done"
    script = f"({waits}; echo late; echo >{tmp_path}/end) &"
    with start("/bin/bash", "-c", script) as started:
        assert started.wait(5) == 0
        members = [each for each in processes.read_table().values() if each.session == started.pid]
        readers = [relay.is_reader(each) for each in members]
        assert True in readers
        assert False in readers
        (tmp_path / "go").touch()
        assert started.stdout is not None
        assert started.stdout.read() == b"late\n"  # which ends when the reader does
        wait_until((tmp_path / "end").exists, 5)
