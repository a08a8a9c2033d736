"""Linking beside the reading: by a second process, once there is much to link.

A link is one long system call between short ones; a thread would wait for the interpreter's lock
after each of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from agent.archive import linker
from agent.archive.linker import Wish
from agent.model.errors import Code, TransientError
from agent.system import process
from agent.system.process import Command

_ALONE = 1000  # files; to link them takes about as long as to start a process
_END_SECONDS = 60.0


class LinkQueue:
    """Takes lists of wishes, and gives back which of them were not fulfilled, in the same order.

    What was put must not be counted on before it is taken. Leaving the block ends all linking.
    """

    def __init__(self, old: Path, new: Path) -> None:
        """Both trees exist. Raises OSError."""
        self._trees = (str(old), str(new))
        self._linker = linker.Linker(*self._trees)
        self._second: _Second | None = None
        self._alone = _ALONE if len(os.sched_getaffinity(0)) > 1 else sys.maxsize
        self._failed: deque[list[int]] = deque()  # of what was linked here

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End the second process, and close what is open."""
        if self._second is not None:
            self._second.end()
        self._linker.close()

    def put(self, wishes: list[Wish]) -> None:
        """Have files linked; their new folders exist. Raises TransientError, like take()."""
        if self._second is None and self._alone < 0:
            self._start()
        if self._second is not None:
            self._second.ask(wishes)
            return
        self._alone -= len(wishes)
        self._failed.append(self._linker.link(wishes))

    def take(self) -> list[int]:
        """The numbers of the wishes, in the list put first, that could not be fulfilled."""
        if self._failed or self._second is None:
            return self._failed.popleft()
        return self._second.answer()

    def link(self, wish: Wish) -> bool:
        """Link one file at once."""
        return not self._linker.link([wish])

    def _start(self) -> None:
        try:
            self._second = _Second(self._trees)
        except OSError:  # no room for another process: it goes on alone
            self._alone = sys.maxsize


class _Second:
    """The second process, linker.py as a program."""

    def __init__(self, trees: tuple[str, str]) -> None:
        program = (sys.executable, "-I", "-S", "-X", "utf8", linker.__file__)
        asked, ask = os.pipe()
        answer, answered = os.pipe()
        self._ask: BinaryIO = os.fdopen(ask, "wb")
        self._answer: BinaryIO = os.fdopen(answer, "rb")
        try:
            command = Command((*program, *trees, str(os.getpid())), {}, stdin=asked)
            self._process = process.children.start(command, answered, subprocess.DEVNULL)
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
            linker.say(wishes, self._ask)
        except BrokenPipeError as error:
            raise self._ended() from error

    def answer(self) -> list[int]:
        """Wait for the answer to the first list that has none yet."""
        failed: list[int] | None = linker.hear(self._answer)
        if failed is None:
            raise self._ended()
        return failed

    def end(self) -> None:
        """Let it finish the list that it is at, and wait for its end."""
        with contextlib.suppress(BrokenPipeError):
            self._ask.close()
        self._answer.close()
        try:
            process.children.wait(self._process, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            process.children.wait(self._process)

    def _ended(self) -> TransientError:
        return TransientError(
            "cannot link the files of the release before: the process that does it has ended",
            code=Code.INSTALL_FAILED,
            remedy="Look for what ended it (dmesg tells if memory was short), then run:"
            " agentctl retry",
        )
