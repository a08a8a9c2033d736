"""Tells on stdout what a deployment does: a line per change of a step, with the time."""

from __future__ import annotations

import sys
import time

from agent.cli import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from agent.client import Body


class Reporter:
    """Plain lines, for CI logs and files. `progress.Bar` puts a moving bar below them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = text.Style(colour=text.has_terminal(stream))
        self._said: dict[str, str] = {}  # step -> the status that was told

    def update(self, deployment: Body) -> None:
        """Tell what is new since the last call. `deployment` was cleaned by the caller."""
        for step in deployment["steps"]:
            if self._said.get(step["name"]) != step["status"]:
                self._said[step["name"]] = step["status"]
                self.on_step(step)

    def on_step(self, step: Body) -> None:
        """A step has a new status."""
        self.say(f"{step['name']}: {_words(step, self._style)}")

    def say(self, words: str) -> None:
        """One line with the time in front."""
        self.write(f"{time.strftime('%H:%M:%S')} {words}")

    def write(self, line: str) -> None:
        """Where lines go."""
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """No more is told."""


def _words(step: Body, style: text.Style) -> str:
    status = step["status"]
    match status:
        case "done":
            words = f"done in {text.seconds(step['seconds'])}"
        case "undone":
            words = f"undone in {text.seconds(step['undo_seconds'])}"
        case "failed":
            words = style("red", "failed") + f" after {text.seconds(step['seconds'])}"
        case _:
            return str(status)
    return f"{words}: {step['note']}" if step["note"] else words


def choose(*, as_json: bool) -> Reporter:
    """A bar on a terminal, else lines; with --json on stderr, as stdout is for the answer."""
    stream = sys.stderr if as_json else sys.stdout
    if as_json or not text.has_terminal(stream):
        return Reporter(stream)
    try:
        # imported here: rich costs more than all the rest, and only a terminal shows it
        from agent.cli import progress
    except ModuleNotFoundError:
        return Reporter(stream)
    return progress.Bar(stream)
