"""A process of its own that answers like a good service: run as a program, or by listening()."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.status_service import GOOD, json_answer

ROOT = Path(__file__).resolve().parent.parent


class Listening:
    """pid: of the process that serves; port: where."""

    def __init__(self, pid: int, port: int, parent: int) -> None:
        self.pid = pid
        self.port = port
        self.parent = parent


@contextmanager
def listening(
    address: str = "127.0.0.1", port: int = 0, *, shared: bool = False, forks: bool = False
) -> Iterator[Listening]:
    """Such a process. shared: SO_REUSEPORT. forks: a child serves, and its parent has no socket."""
    argv = [sys.executable, "-m", "tests.listening_process", address, str(port)]
    argv += ["--shared"] * shared + ["--forks"] * forks
    with _serving(argv) as found:
        yield found


@contextmanager
def activated(listener: socket.socket) -> Iterator[Listening]:
    """A process that serves on a socket of the caller's, as with socket activation."""
    number = listener.fileno()
    argv = [sys.executable, "-m", "tests.listening_process", "--descriptor", str(number)]
    with _serving(argv, number) as found:
        yield found


@contextmanager
def _serving(argv: list[str], *pass_fds: int) -> Iterator[Listening]:
    with subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds
    ) as process:
        assert process.stdout is not None
        try:
            pid, port = process.stdout.readline().split()
            yield Listening(int(pid), int(port), process.pid)
        finally:
            process.communicate()  # the end of its stdin ends it


def main() -> None:
    """Listen, say "pid port", and answer until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--forks", action="store_true")
    parser.add_argument("--descriptor", type=int)
    options = parser.parse_args()
    if options.descriptor is not None:
        listener = socket.socket(fileno=options.descriptor)
    else:
        family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((options.address, options.port))
        listener.listen()
    if options.forks and (child := os.fork()):
        listener.close()
        os.waitpid(child, 0)
        return
    print(os.getpid(), listener.getsockname()[1], flush=True)
    _answer(listener)


def _answer(listener: socket.socket) -> None:
    listener.settimeout(0.02)
    os.set_blocking(0, False)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if sys.stdin.buffer.raw.read(1) == b"":  # type: ignore[attr-defined]
                return
            continue
        with connection:
            connection.settimeout(1.0)
            connection.recv(65536)
            connection.sendall(json_answer(GOOD))


if __name__ == "__main__":
    main()
