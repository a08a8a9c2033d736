"""Tells how publishing goes on: lines with the time, and bars for transfers on a terminal."""

from __future__ import annotations

import time

from agent.cli import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_QUIET_SECONDS = 10.0


class Lines:
    """Plain lines, for CI logs and files. `progress.Transfers` puts moving bars below them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[str, float] = {}  # place -> when its progress was told

    def say(self, words: str) -> None:
        """One line with the time in front."""
        self.write(f"{time.strftime('%H:%M:%S')} {text.clean(words)}")

    def progress(self, place: str, done: int, total: int) -> None:
        """A line every 10 seconds; none for what is quick."""
        now = time.monotonic()
        if now - self._told.setdefault(place, now) >= _QUIET_SECONDS:
            self._told[place] = now
            of_all = f" of {text.size(total)}" if total else ""
            self.say(f"{place}: {text.size(done)}{of_all}")

    def write(self, line: str) -> None:
        """Where lines go."""
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """No more is told."""
