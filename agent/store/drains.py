"""What people keep out of Consul's traffic, so that it stays out across restarts."""

from __future__ import annotations

import time
from dataclasses import dataclass

from agent.store.state import State


@dataclass(frozen=True, slots=True)
class Drain:
    """A person drained an application. until: Unix seconds, None without an end."""

    application: str
    reason: str
    by: str
    since: float
    until: float | None


class Drains:
    """By application. All methods block; they raise AgentError."""

    def __init__(self, state: State) -> None:
        self._state = state

    def of(self, application: str) -> Drain | None:
        """The drain in force, None when there is none or it has expired."""
        rows = self._state.rows("SELECT * FROM drains WHERE application = ?", (application,))
        drain = Drain(**dict(rows[0])) if rows else None
        if drain is not None and drain.until is not None and drain.until <= time.time():
            return None
        return drain

    def next_end(self) -> float | None:
        """When the next one expires, in Unix seconds; None where none does."""
        rows = self._state.rows(
            "SELECT min(until) AS until FROM drains WHERE until > ?", (time.time(),)
        )
        return rows[0]["until"] if rows else None

    def save(self, drain: Drain) -> None:
        """Begin it, or replace the one that is there."""
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO drains VALUES (?, ?, ?, ?, ?)",
                (drain.application, drain.reason, drain.by, drain.since, drain.until),
            )

    def end(self, application: str) -> None:
        """End it; one that is not there is fine."""
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM drains WHERE application = ?", (application,))
