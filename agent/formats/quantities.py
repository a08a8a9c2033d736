"""Durations and sizes as people write them: 30s, 5m, 20G."""

from __future__ import annotations

import contextlib
import math
import re

from agent.model.errors import AgentError, Code

TYPE_CHECKING = False  # typing costs agentctl 3 ms of start-up
if TYPE_CHECKING:
    from typing import Any

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]{0,2})", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds of 30, "30", "30s", "500ms", "5m", "1h" or "2d". Raises AgentError (BAD_REQUEST)."""
    number, unit = _split(value)
    if unit not in _SECONDS:
        raise _refused("duration", value, "Write seconds, or a number with ms, s, m, h or d: 5m")
    return number * _SECONDS[unit]


def durations(entry: dict[str, object], *keys: str) -> dict[str, Any]:
    """The durations that are given, as fields in seconds; the schema complains of bad ones."""
    given = {}
    for key in keys:
        if isinstance(entry.get(key), str | int | float):
            with contextlib.suppress(AgentError):
                given[f"{key}_seconds"] = parse_duration(entry[key])
    return given


def parse_size(value: object) -> int:
    """Bytes of 1000, "64M", "1.5G": K, M, G, T are powers of 1024. Raises AgentError."""
    number, unit = _split(value)
    if unit not in _BYTES:
        raise _refused("size", value, "Write bytes, or a number with K, M, G or T: 64M")
    return int(number * _BYTES[unit])


def _split(value: object) -> tuple[float, str]:
    """The number and its unit; an unknown unit where the value is no quantity at all."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_sane = not isinstance(value, float) or math.isfinite(value)
        return (float(value), "") if is_sane and 0 <= value < 10**15 else (0.0, "?")
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    return (float(match[1]), match[2]) if match else (0.0, "?")


def _refused(what: str, value: object, remedy: str) -> AgentError:
    return AgentError(
        f"cannot read the {what} {str(value)[:40]!r}: it is none",
        code=Code.BAD_REQUEST,
        remedy=remedy,
    )
