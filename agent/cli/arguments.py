"""Argument types that argparse does not have."""

from __future__ import annotations

import argparse

from agent.formats import quantities
from agent.model.errors import AgentError


def parse_duration(given: str) -> float:
    """Seconds of "90s", "10m", "2h" or "1d", above 0."""
    try:
        seconds = quantities.parse_duration(given)
    except AgentError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; write 90s, 10m, 2h or 1d") from error
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{given!r} is not longer than nothing")
    return seconds


def parse_reason(given: str) -> str:
    """Words that tell others something."""
    if not given.strip():
        raise argparse.ArgumentTypeError("a reason has to say something, such as 'disk swap'")
    return given


def parse_count(given: str) -> int:
    """A whole number above 0."""
    number = int(given) if given.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number above 0")
    return number
