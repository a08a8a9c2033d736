"""What the daemon tells the service manager, at a real socket in systemd's place (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
# python3-systemd is Debian's: the environment of the tests has no compiler for it
PYTHON = "/usr/bin/python3"
MODULES = "import systemd.daemon, systemd.journal, aiohttp, yaml, jsonpointer"


def _has_modules() -> bool:
    try:
        done = subprocess.run([PYTHON, "-Pc", MODULES], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


pytestmark = pytest.mark.skipif(
    not _has_modules(), reason="needs Debian's python3-systemd, -aiohttp, -yaml and -json-pointer"
)


class Listener:
    """The socket that systemd listens at, and what was said there."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for(self, line: str) -> list[str]:
        """Read on until this line comes; all the lines until then."""
        said: list[str] = []
        while line not in said:
            said += self._socket.recv(4096).decode().splitlines()
        return said


@contextlib.contextmanager
def running(folder: Path, listener: Listener, config: str = "") -> Iterator[subprocess.Popen[str]]:
    """The daemon, with a watchdog that wants to hear of it every second."""
    (folder / "agent.yaml").write_text(
        f"state_dir: {folder}/state\nrun_dir: {folder}/run\n{config}"
    )
    process = subprocess.Popen(
        [PYTHON, "-m", "agent", "--config", str(folder / "agent.yaml")],
        cwd=ROOT,
        env={
            **os.environ,
            "NOTIFY_SOCKET": listener.path,
            "WATCHDOG_USEC": "1000000",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ready_alive_and_stopping(state_dir: Path) -> None:
    with (
        Listener(state_dir) as listener,
        running(state_dir, listener, "shutdown: 90s\n") as process,
    ):
        listener.wait_for("READY=1")
        assert (state_dir / "run" / "agent.sock").exists()
        for _ in range(3):
            said = listener.wait_for("WATCHDOG=1")
        assert said == ["WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        listener.wait_for("EXTEND_TIMEOUT_USEC=100000000")
        assert process.wait(8) == 0


def test_configuration_that_cannot_be_used_is_never_ready(state_dir: Path) -> None:
    with Listener(state_dir) as listener, running(state_dir, listener, "nonsense: 1\n") as process:
        assert process.wait(8) == 78
        assert process.stderr is not None
        assert "nonsense" in process.stderr.read()


def test_fault_in_all_threads_is_told(state_dir: Path) -> None:
    """SIGABRT is how a watchdog ends a daemon that hangs."""
    with Listener(state_dir) as listener, running(state_dir, listener) as process:
        listener.wait_for("READY=1")
        process.send_signal(signal.SIGABRT)
        _, said = process.communicate(timeout=8)
        assert "Current thread" in said
        assert process.returncode == -signal.SIGABRT
