"""Child processes: plain commands, small commands, and telling processes apart."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.model.errors import AgentError
from agent.system import process, processes
from agent.system.process import Command
from tests.hook_scene import is_alive
from tests.waiting import wait_until, wait_until_async


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


async def run(*argv: str, timeout_seconds: float = 5.0, **options: object) -> process.Completed:
    command = Command(argv, {"PATH": process.SEARCH_PATH})
    return await process.run(command, timeout_seconds=timeout_seconds, grace_seconds=0.2, **options)


async def test_exit_code_signal_and_output() -> None:
    taken: list[tuple[str, bytes]] = []
    script = "echo out; echo err >&2; exit 7"
    done = await run("sh", "-c", script, output=lambda *each: taken.append(each))
    assert (done.exit_code, done.signal, str(done)) == (7, None, "exit code 7")
    assert sorted(taken) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    assert sorted(done.tail.split()) == [b"err", b"out"]
    done = await run("sh", "-c", "kill -TERM $$")
    assert (done.exit_code, done.signal, str(done)) == (None, signal.SIGTERM, "ended by SIGTERM")


async def test_ends_with_the_main_process_not_with_its_pipes() -> None:
    done = await run("sh", "-c", "sleep 1000 & echo $!")
    assert done.seconds < 2
    os.kill(int(done.tail), signal.SIGKILL)


@pytest.mark.parametrize(("path", "code"), [("/no/such", 127), ("/etc/passwd", 126), ("/", 126)])
async def test_what_cannot_be_started_ends_as_in_a_shell(path: str, code: int) -> None:
    done = await run(path)
    assert done.exit_code == code
    assert path.encode() in done.tail


@pytest.mark.slow
async def test_timeout_ends_the_whole_session() -> None:
    began = time.monotonic()
    done = await run(
        "sh", "-c", "trap '' TERM; (sleep 1000; true) & echo $!; sleep 1000", timeout_seconds=0.2
    )
    assert done.timed_out
    assert done.signal is signal.SIGKILL
    assert time.monotonic() - began < 3
    assert not is_alive(int(done.tail))


async def test_cancelled_while_it_starts() -> None:
    starting = asyncio.create_task(run("sleep", "1000"))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await wait_until_async(lambda: not process.children.pids())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_broken_output_ends_the_command() -> None:
    def output(stream: str, chunk: bytes) -> None:
        raise RuntimeError("of the test")

    with pytest.raises(RuntimeError, match="not read"):
        await run("sh", "-c", "echo; sleep 1000", output=output)
    await wait_until_async(lambda: not process.children.pids())


async def test_capture_small_command() -> None:
    assert await process.capture(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (
        process.Captured(3, "out", "err")
    )


def test_capture_has_a_clean_environment() -> None:
    found = process.capture_blocking(["env"], env={"A": "1"}).out.splitlines()
    assert sorted(found) == ["A=1", "LANG=C.UTF-8", f"PATH={process.SEARCH_PATH}"]


def test_capture_of_a_command_that_is_not_there() -> None:
    missing = process.capture_blocking(["no-such-command"])
    assert missing.code == 127
    assert "no-such-command" in missing.err


def test_capture_has_a_time_limit_and_does_not_wait_for_daemons() -> None:
    began = time.monotonic()
    with pytest.raises(AgentError, match="no answer within"):
        process.capture_blocking(["sleep", "1000"], timeout_seconds=0.1)
    done = process.capture_blocking(["sh", "-c", "sleep 1000 & echo $!"])
    assert time.monotonic() - began < 3
    os.kill(int(done.out), signal.SIGKILL)
    assert process.children.pids() == frozenset()


def test_signal_never_meets_another_process_of_that_pid(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.read_process(sleeper.pid)
    assert found is not None
    wait_until(lambda: processes.describe(found) == f"{sleeper.pid} sleep 1000")
    impostor = dataclasses.replace(found, start=found.start - 1)
    assert not processes.send(impostor, signal.SIGKILL)
    assert sleeper.poll() is None
    assert processes.send(found, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    assert processes.read_process(sleeper.pid) is None
    assert not processes.send(found, signal.SIGKILL)
    assert processes.describe(found) == f"{sleeper.pid} (ended)"


def test_start_counts_in_ticks_since_boot() -> None:
    before = processes.now_ticks()
    with subprocess.Popen(["true"]) as child:
        found = processes.read_process(child.pid)
    assert found is not None
    assert before <= found.start <= processes.now_ticks()


def test_with_descendants() -> None:
    def make(pid: int, parent: int) -> processes.Process:
        return processes.Process(pid, 1, parent, 0, 0, is_zombie=False)

    table = {pid: make(pid, parent) for pid, parent in [(1, 0), (2, 1), (3, 2), (4, 1), (5, 3)]}
    assert processes.with_descendants(table, [2]) == {2, 3, 5}
    assert processes.with_descendants(table, []) == set()
