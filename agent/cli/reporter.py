"""Tells on stdout what a deployment does: a line per change of a step, with the time."""

from __future__ import annotations

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
        self._failures: dict[str, Body] = {}  # step -> the failure that was told

    def update(self, deployment: Body) -> None:
        """Tell what is new since the last call. `deployment` was cleaned by the caller."""
        for step in _in_order(deployment["steps"]):
            name, status, failure = step["name"], step["status"], step["failure"]
            if failure and failure != self._failures.get(name):
                self._failures[name] = failure
                self.say(f"{name}: {self._style('red', 'failed')}: {failure['message']}")
            if status not in ("failed", self._said.get(name)):
                self.on_step(step)
            self._said[name] = status

    def on_step(self, step: Body) -> None:
        """A step has a new status."""
        self.say(f"{step['name']}: {_words(step)}")

    def say(self, words: str) -> None:
        """One line with the time in front."""
        self.write(f"{time.strftime('%H:%M:%S')} {words}")

    def write(self, line: str) -> None:
        """Where lines go."""
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """No more is told."""


def _in_order(steps: list[Body]) -> list[Body]:
    """The steps as their last changes came: done ones, undone ones backwards, what runs."""
    running = [step for step in steps if step["status"] in ("doing", "undoing")]
    undone = [step for step in steps if step["status"] == "undone"]
    rest = [step for step in steps if step["status"] not in ("doing", "undoing", "undone")]
    return [*rest, *reversed(undone), *running]


def _words(step: Body) -> str:
    match step["status"]:
        case "done":
            words = f"done in {text.seconds(step['seconds'])}"
            return f"{words}: {step['note']}" if step["note"] else words
        case "undone":
            return f"undone in {text.seconds(step['undo_seconds'])}"
        case status:
            return str(status)
