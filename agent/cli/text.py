"""How agentctl writes times, sizes and colours, and keeps foreign text harmless on a terminal."""

from __future__ import annotations

import os
import re
import time

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from typing import Any, TextIO

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|[\x1b][\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC and its kin: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    r"|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # direction marks can reorder what is read
)
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


def clean(text: str) -> str:
    """`text` without terminal escape sequences and control characters but newline and tab."""
    return text if text.isprintable() else _CONTROL.sub("", text)


def clean_all(value: Any) -> Any:
    """The same JSON value with every string in it cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_all(item) for item in value]
    if isinstance(value, dict):
        return {key: clean_all(item) for key, item in value.items()}
    return value


def has_terminal(stream: TextIO | None) -> bool:
    """Whether colours and a moving bar are welcome: a terminal, not dumb, and no NO_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return stream is not None and stream.isatty()  # None where it was closed


class Style:
    """Colours where they are welcome, else none: style("red", "failed")."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, name: str, text: str) -> str:
        """`text` in the colour `name`."""
        return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if self._colour else text


PLAIN = Style(colour=False)


def seconds(value: float) -> str:
    """A duration for people: "0.31 s", "42 s", "3 min", "2 h", "5 days"."""
    if value < 10:
        return f"{max(value, 0):.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 120 * 60:
        return f"{value / 60:.0f} min"
    if value < 48 * 3600:
        return f"{value / 3600:.0f} h"
    return f"{value / 86400:.0f} days"


def ago(moment: float, now: float) -> str:
    """How long ago a Unix time was: "3 min ago"."""
    age = int(now - moment)
    if age < 1:
        return "just now"
    return f"{age} s ago" if age < 10 else f"{seconds(age)} ago"


def clock(moment: float, now: float) -> str:
    """A Unix time in local words: "14:02:10", with the date where it is not today's."""
    local = time.localtime(moment)
    if local[:3] == time.localtime(now)[:3]:
        return time.strftime("%H:%M:%S", local)
    return time.strftime("%Y-%m-%d %H:%M", local)


def size(octets: float) -> str:
    """Bytes for people: "12.3 MB" (powers of 1000, as disks and S3 count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} B" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def columns(rows: list[list[str]]) -> list[str]:
    """Rows as lines with aligned columns; the last column is not padded."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def indent(text: str, prefix: str) -> list[str]:
    """Each line of `text` behind `prefix`."""
    return [prefix + line for line in text.splitlines()]
