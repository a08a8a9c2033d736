"""Moving bars below the lines of what is done already. Only here is rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from agent.cli.reporter import Reporter
from agent.cli.teller import Lines

if TYPE_CHECKING:
    from agent.client import Body


class Bar(Reporter):
    """Reporter for a terminal. close() must be called: it gives the cursor back."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._label = TextColumn("", markup=False)
        self._progress = Progress(
            self._label,
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(file=stream, markup=False, emoji=False, highlight=False),
            transient=True,
        )
        self._row: TaskID | None = None
        self._step = ""
        self._progress.start()

    def update(self, deployment: Body) -> None:
        """Tell what is new, and move the bar."""
        super().update(deployment)
        running = next((step for step in deployment["steps"] if _is_running(step)), None)
        if running is None or deployment["outcome"]:
            self._hide()
            return
        self._show(f"{'undo of ' if running['status'] == 'undoing' else ''}{running['name']}")
        progress = deployment["progress"]
        if self._row is not None and progress and progress["step"] == running["name"]:
            total = progress["total"] or None  # None: the bar only moves to and fro
            self._progress.update(self._row, completed=progress["done"], total=total)

    def on_step(self, step: Body) -> None:
        """The bar tells what runs; lines tell what ended."""
        if not _is_running(step):
            super().on_step(step)

    def write(self, line: str) -> None:
        """Above the bar. The escape sequences in `line` are our colours; others were cleaned."""
        self._progress.console.print(Text.from_ansi(line), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _show(self, step: str) -> None:
        if self._row is not None and self._step == step:
            return
        self._hide()
        self._step = step
        self._label.text_format = f"         {step}"
        self._row = self._progress.add_task(step, total=None)

    def _hide(self) -> None:
        if self._row is not None:
            self._progress.remove_task(self._row)
            self._row = None


class Transfers(Lines):
    """A bar for each transfer. close() must be called: it gives the cursor back."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._progress = Progress(
            TextColumn("         {task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(file=stream, markup=False, emoji=False, highlight=False),
            transient=True,
        )
        self._rows: dict[str, TaskID] = {}
        self._progress.start()

    def progress(self, place: str, done: int, total: int) -> None:
        """Move the bar of a place; it goes when all is done."""
        if place not in self._rows:
            self._rows[place] = self._progress.add_task(place, total=None)
        self._progress.update(self._rows[place], completed=done, total=total or None)
        if total and done >= total:
            self._progress.remove_task(self._rows.pop(place))

    def write(self, line: str) -> None:
        """Above the bars."""
        self._progress.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()


def _is_running(step: Body) -> bool:
    return bool(step["status"] in ("doing", "undoing"))
