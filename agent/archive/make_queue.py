"""Making files beside the reading: by a second process, once there are many.

A file is made by a handful of short system calls, after each of which a thread would wait for the
interpreter's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from agent.archive import maker
from agent.archive.maker import Wish
from agent.model.errors import Code, TransientError
from agent.system import process
from agent.system.process import Command

_ALONE = 1000  # files; to link them takes about as long as to start a process
_PIPE_BYTES = 2**20  # holds a batch while the one before is made
_END_SECONDS = 60.0
_STDERR = 2  # the agent's own: only a fault of ours is written there


class MakeQueue:
    """Takes lists of wishes, and gives back which of them were not fulfilled, in the same order.

    What was put must not be counted on before it is taken. Leaving the block ends all making.
    """

    def __init__(self, tree: Path, old: Path | None, *, exact: bool) -> None:
        """Both trees exist; exact: see tree.Tree. Raises OSError."""
        self._args = ("exact" if exact else "", str(tree), str(old or ""))
        self._maker = maker.Maker(*self._args[1:], exact=exact)
        self._second: _Second | None = None
        self._alone = _ALONE if len(os.sched_getaffinity(0)) > 1 else sys.maxsize
        self._failed: deque[list[int]] = deque()  # of what was made here

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End the second process, and close what is open."""
        if self._second is not None:
            self._second.end()
        self._maker.close()

    def put(self, wishes: list[Wish]) -> None:
        """Have files made, and their folders. Raises TransientError, like take()."""
        if self._second is None and self._alone < 0:
            self._start()
        if self._second is not None:
            self._second.ask(wishes)
            return
        self._alone -= len(wishes)
        self._failed.append(self._maker.make(wishes))

    def take(self) -> list[int]:
        """The numbers of the wishes, in the list put first, that could not be fulfilled."""
        if self._failed or self._second is None:
            return self._failed.popleft()
        return self._second.answer()

    def link(self, folder: str, name: str, new_name: str, wanted: tuple[int, int, int]) -> bool:
        """Link one file of the old tree at once; wanted: its mode, size and mtime_ns."""
        with contextlib.suppress(OSError):
            return self._maker.link(folder, name, new_name, wanted)
        return False

    def _start(self) -> None:
        try:
            self._second = _Second(self._args)
        except OSError:  # no room for another process: it goes on alone
            self._alone = sys.maxsize


class _Second:
    """The second process: maker.py as a program."""

    def __init__(self, args: tuple[str, ...]) -> None:
        program = (sys.executable, "-I", "-S", "-X", "utf8", maker.__file__, str(os.getpid()))
        asked, ask = os.pipe()
        answer, answered = os.pipe()
        self._ask: BinaryIO = os.fdopen(ask, "wb")
        self._answer: BinaryIO = os.fdopen(answer, "rb")
        with contextlib.suppress(OSError):  # more than this host allows
            fcntl.fcntl(ask, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            command = Command((*program, *args), {}, stdin=asked)
            self._process = process.children.start(command, answered, _STDERR)
        except OSError:
            self._ask.close()
            self._answer.close()
            raise
        finally:
            os.close(asked)
            os.close(answered)

    def ask(self, wishes: list[Wish]) -> None:
        """Send a list."""
        try:
            maker.say(wishes, self._ask)
        except BrokenPipeError as error:
            raise self._ended() from error

    def answer(self) -> list[int]:
        """Wait for the answer to the first list that has none yet."""
        failed: list[int] | None = maker.hear(self._answer)
        if failed is None:
            raise self._ended()
        return failed

    def end(self) -> None:
        """Let it finish the list that it is at, and wait for its end."""
        with contextlib.suppress(BrokenPipeError):
            self._ask.close()
        self._answer.close()
        self._wait()

    def _ended(self) -> TransientError:
        code = self._wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return TransientError(
            f"cannot write the release: the process that makes its files ended by {how}",
            code=Code.INSTALL_FAILED,
            remedy="Look for its last words in the agent's log, and in dmesg for a lack of memory,"
            " then run: agentctl retry",
        )

    def _wait(self) -> int:
        try:
            return process.children.wait(self._process, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return process.children.wait(self._process)
