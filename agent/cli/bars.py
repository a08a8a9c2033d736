"""Who tells how it goes on: bars on a terminal, else plain lines."""

from __future__ import annotations

import sys

from agent.cli import text
from agent.cli.reporter import Reporter
from agent.cli.teller import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import TextIO


def reporter(*, as_json: bool) -> Reporter:
    """With --json it tells on stderr, as stdout is for the answer."""
    stream = _stream(as_json=as_json)
    found = _bars(stream, as_json=as_json)
    return found.Bar(stream) if found else Reporter(stream)


def lines(*, as_json: bool) -> Lines:
    """The same for what is published."""
    stream = _stream(as_json=as_json)
    found = _bars(stream, as_json=as_json)
    return found.Transfers(stream) if found else Lines(stream)


def _stream(*, as_json: bool) -> TextIO:
    return sys.stderr if as_json else sys.stdout


def _bars(stream: TextIO, *, as_json: bool) -> ModuleType | None:
    if as_json or not text.has_terminal(stream):
        return None
    try:
        # imported here: rich costs more than all the rest, and only a terminal shows it
        from agent.cli import progress
    except ModuleNotFoundError:
        return None
    return progress
