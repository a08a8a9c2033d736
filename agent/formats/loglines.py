"""The lines of a deployment's log, in the order of their times."""

from __future__ import annotations

from collections.abc import Sequence

_STAMP = len("2026-01-31T12:00:00.000Z")


def in_order(lines: Sequence[str]) -> list[str]:
    """Sort lines by the time that each begins with; those of one time stay as they are.

    What hooks and units say arrives by way of the journal, and the end of a long output is held
    until the hook has ended: both are written after lines of the agent's that are younger. A line
    that begins with no time belongs to the one before it.
    """
    keyed: list[tuple[str, str]] = []
    stamp = ""
    for line in lines:
        if line[:4].isdigit() and line[_STAMP - 1 : _STAMP] == "Z":
            stamp = line[:_STAMP]
        keyed.append((stamp, line))
    keyed.sort(key=lambda each: each[0])
    return [line for _, line in keyed]
