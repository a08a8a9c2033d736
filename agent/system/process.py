"""Child processes: every one that the agent starts goes through here (rule 35).

run() is for what may take long and start more processes: own session, chosen user, clean
environment, TERM, grace, KILL. capture() is for a small command whose answer is wanted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.model.errors import AgentError, Code
from agent.system import processes
from agent.system.cancel import Cancel
from agent.system.processes import Process
from agent.system.threads import run_blocking
from agent.system.users import Account

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Output = Callable[[str, bytes], None]
"""Takes the stream ("stdout", "stderr") and its bytes as they come; called in a thread."""

_CHUNK_BYTES = 64 * 1024
_TAIL_BYTES = 4096
_UMASK = 0o022
# how long what the main process started may go on to write after its end: `exec > >(tee log)`
_DRAIN_SECONDS = 0.2
_KILL_SECONDS = 5.0  # a process that outlives KILL so long is stuck in the kernel
_CAPTURED_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. env is all of its environment. user: None stays who the agent is.

    stdin: a descriptor of the caller's; by default /dev/null.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/"
    user: Account | None = None
    stdin: int = subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command's main process ended. tail: its last bytes, of both streams.

    Either exit_code or signal is set; neither, if not even KILL ended it.
    """

    exit_code: int | None
    signal: signal.Signals | None
    seconds: float
    timed_out: bool = False
    tail: bytes = b""

    def __str__(self) -> str:
        if self.signal is not None:
            return f"ended by {self.signal.name}"
        return "still alive after KILL" if self.exit_code is None else f"exit code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class Captured:
    """A small command's answer, decoded and stripped; at most 1 MiB of each stream."""

    code: int
    out: str
    err: str


class Tree(Protocol):
    """Everything that one command started. All methods block."""

    def begin(self, main: Process) -> None:
        """The main process was started."""

    def members(self) -> list[Process]:
        """Those that are alive."""

    def kill(self) -> None:
        """KILL all of them; returns when they are gone, or when that takes too long."""


class ProcessGroup:
    """The processes that stayed in the session of the main process: enough for plain commands."""

    def __init__(self) -> None:
        self._main = 0

    def begin(self, main: Process) -> None:
        """Remember the session."""
        self._main = main.pid

    def members(self) -> list[Process]:
        """The session's processes."""
        if not self._main:
            return []  # it was not started; 0 is the session of the kernel's own
        table = processes.read_table().values()
        return [each for each in table if each.session == self._main and not each.is_zombie]

    def kill(self) -> None:
        """KILL them, and those that they started meanwhile."""
        deadline = time.monotonic() + _KILL_SECONDS
        while (found := self.members()) and time.monotonic() < deadline:
            for process in found:
                processes.send(process, signal.SIGKILL)
            time.sleep(0.002)


async def run(
    command: Command,
    *,
    timeout_seconds: float,
    grace_seconds: float,
    output: Output | None = None,
    tree: Tree | None = None,
) -> Completed:
    """Run a command until its main process ends; whoever else holds its pipes delays nothing.

    At the timeout, and when the caller is cancelled, everything in `tree` gets TERM and, after
    the grace, KILL; a second cancellation cuts the grace short. A command that cannot be started
    ends like a shell's: exit code 127 where it does not exist, else 126.
    """
    whole = tree or ProcessGroup()
    ended: asyncio.Future[tuple[int, float]] | None = None
    try:
        try:
            child = await run_blocking(Cancel(), _start, command, whole, output)
        except OSError as error:
            return _not_started(command, error, output)
        ended = asyncio.wrap_future(child.ended)
        await asyncio.wait([ended], timeout=timeout_seconds)
        timed_out = not child.main_ended.is_set()
        if timed_out:
            await end(whole, grace_seconds)
        done, _ = await asyncio.wait([ended], timeout=_KILL_SECONDS)
    except asyncio.CancelledError:
        await end(whole, grace_seconds)
        if ended is not None:  # so that its last words are in the output
            await asyncio.wait([ended], timeout=_KILL_SECONDS)
        raise
    code, seconds = ended.result() if done else (None, time.monotonic() - child.began)
    return Completed(
        exit_code=code if code is None or code >= 0 else None,
        signal=signal.Signals(-code) if code is not None and code < 0 else None,
        seconds=seconds,
        timed_out=timed_out,
        tail=child.tail,
    )


async def end(tree: Tree, grace_seconds: float) -> list[str]:
    """TERM, grace, KILL; what was alive, each "pid command". Being cancelled cuts grace short."""
    hurry = Cancel()
    return await run_blocking(hurry, _end, tree, grace_seconds, hurry)


def _end(tree: Tree, grace_seconds: float, hurry: Cancel) -> list[str]:
    found = tree.members()
    names = [processes.describe(process) for process in found]
    for process in found:
        processes.send(process, signal.SIGTERM)
        processes.send(process, signal.SIGCONT)  # a stopped process does not see TERM
    deadline = time.monotonic() + grace_seconds
    pause = 0.002
    while tree.members() and time.monotonic() < deadline and not hurry.is_set():
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    tree.kill()
    return names


class Children:
    """The agent's own children: each is waited for by whoever started it, and nobody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()

    def start(self, command: Command, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a child; raises OSError."""
        user = command.user
        with self._lock:
            popen = subprocess.Popen(
                command.argv,
                stdin=command.stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=command.cwd,
                env=command.env,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
                umask=_UMASK,
                start_new_session=True,
            )
            self._pids.add(popen.pid)
        return popen

    def wait(self, popen: subprocess.Popen[bytes], timeout_seconds: float | None = None) -> int:
        """Its return code; raises subprocess.TimeoutExpired."""
        code = popen.wait(timeout_seconds)
        with self._lock:
            self._pids.discard(popen.pid)
        return code

    def reap_orphans(self) -> None:
        """Collect ended processes that the agent inherited as a subreaper."""
        with self._lock:
            processes.reap_orphans(self._pids)

    def pids(self) -> frozenset[int]:
        """Those not waited for yet."""
        with self._lock:
            return frozenset(self._pids)


children = Children()
"""The kernel has one such list per process, and so have we."""


class _Child(threading.Thread):
    """Reads what a child writes, and sees its end.

    ended: return code and seconds, shortly after the end of the main process. What it left behind
    may hold the pipes for ever: they are emptied and forgotten, so that it is not ended by
    SIGPIPE, nor stuck at a full pipe.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], pipes: dict[int, str], output: Output | None
    ) -> None:
        super().__init__(name=f"child-{popen.pid}", daemon=True)
        self.began = time.monotonic()
        self.tail = b""
        self.main_ended = threading.Event()
        self.ended: concurrent.futures.Future[tuple[int, float]] = concurrent.futures.Future()
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self._pipes = pipes
        self._output = output

    def run(self) -> None:
        """Empty the pipes until nobody holds them."""
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (self._pidfd, *self._pipes):
                    selector.register(descriptor, selectors.EVENT_READ)
                self._until_ended(selector)
                while self._pipes:
                    self._read(selector, None)
        finally:
            for pipe in self._pipes:
                os.close(pipe)
            if not self.ended.done():  # a fault of ours, or of the caller's `output`
                self.ended.set_exception(RuntimeError("the output of a child was not read"))
                children.wait(self._popen)

    def _until_ended(self, selector: selectors.BaseSelector) -> None:
        while not self.main_ended.is_set():
            self._read(selector, None)
        now = time.monotonic()
        seconds = now - self.began
        while self._pipes and (left := now + _DRAIN_SECONDS - time.monotonic()) > 0:
            self._read(selector, left)
        code = children.wait(self._popen)
        self.ended.set_result((code, seconds))

    def _read(self, selector: selectors.BaseSelector, timeout_seconds: float | None) -> None:
        for key, _ in selector.select(timeout_seconds):
            if key.fd == self._pidfd:
                selector.unregister(self._pidfd)
                os.close(self._pidfd)
                self._pidfd = -1
                self.main_ended.set()
            elif chunk := os.read(key.fd, _CHUNK_BYTES):
                self._take(self._pipes[key.fd], chunk)
            else:
                selector.unregister(key.fd)
                del self._pipes[key.fd]
                os.close(key.fd)

    def _take(self, stream: str, chunk: bytes) -> None:
        if self.ended.done():
            return
        self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
        if self._output is not None:
            self._output(stream, chunk)


def _start(command: Command, tree: Tree, output: Output | None) -> _Child:
    """Start the command; raises OSError."""
    reading, writing = zip(os.pipe(), os.pipe(), strict=True)
    try:
        if command.user is not None:
            for pipe in writing:  # else its `echo > /dev/stderr` is refused
                os.fchown(pipe, command.user.uid, command.user.gid)
        popen = children.start(command, *writing)
    except OSError:
        for pipe in reading:
            os.close(pipe)
        raise
    finally:
        for pipe in writing:
            os.close(pipe)
    try:
        child = _Child(popen, dict(zip(reading, ("stdout", "stderr"), strict=True)), output)
    except OSError:  # no descriptor left to watch it by
        popen.kill()
        children.wait(popen)
        for pipe in reading:
            os.close(pipe)
        raise
    child.start()
    main = processes.read_process(popen.pid)
    if main is not None:
        tree.begin(main)
    return child


def _not_started(command: Command, error: OSError, output: Output | None) -> Completed:
    text = f"cannot run {error.filename or command.argv[0]}: {error.strerror}\n".encode()
    if output is not None:
        output("stderr", text)
    code = 127 if isinstance(error, FileNotFoundError) else 126
    return Completed(exit_code=code, signal=None, seconds=0.0, tail=text)


async def capture(
    argv: Sequence[str], *, timeout_seconds: float = 30.0, env: Mapping[str, str] | None = None
) -> Captured:
    """capture_blocking() for code on the event loop."""
    return await asyncio.to_thread(capture_blocking, argv, timeout_seconds=timeout_seconds, env=env)


def capture_blocking(
    argv: Sequence[str], *, timeout_seconds: float = 30.0, env: Mapping[str, str] | None = None
) -> Captured:
    """Run a small command, and read what it answers; blocks.

    Its environment is PATH and LANG, and `env`. A command that does not exist has code 127, one
    that a signal ended the negative number of it. Raises AgentError when it takes too long.
    """
    command = Command(tuple(argv), {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", **(env or {})})
    # memory files instead of pipes: nothing to drain, and nobody can hold them open
    out, err = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err"))
    try:
        try:
            popen = children.start(command, out, err)
        except OSError as error:
            return Captured(127, "", f"{argv[0]}: {error.strerror}")
        try:
            code = children.wait(popen, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            os.killpg(popen.pid, signal.SIGKILL)
            children.wait(popen)
            raise AgentError(
                f"cannot run {' '.join(argv)}: no answer within {timeout_seconds:g} s",
                code=Code.INTERNAL,
                remedy="Run it by hand to see what it waits for",
            ) from error
        return Captured(code, _text(out), _text(err))
    finally:
        os.close(out)
        os.close(err)


def _text(descriptor: int) -> str:
    return os.pread(descriptor, _CAPTURED_BYTES, 0).decode(errors="replace").strip()
