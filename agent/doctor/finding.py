"""What the doctor says of one thing: how it is, and what to do where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """unknown: it could not be looked at, as a rule because that needs root."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. remedy: an imperative sentence, ideally with the command to type."""

    level: Level
    text: str
    remedy: str = ""


def ok(text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, text)


def unknown(text: str, remedy: str = "Look as root: sudo agentctl doctor") -> Finding:
    """It could not be looked at."""
    return Finding(Level.UNKNOWN, text, remedy)


def warning(text: str, remedy: str) -> Finding:
    """Deployments work, but this is worth knowing."""
    return Finding(Level.WARNING, text, remedy)


def problem(text: str, remedy: str) -> Finding:
    """Deployments do not work, or are not safe."""
    return Finding(Level.PROBLEM, text, remedy)
