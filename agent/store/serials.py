"""The highest serial of a manifest that this host has seen: what is older is not let in again."""

from __future__ import annotations

from agent.store.state import State


class Serials:
    """By application and deployment group. All methods block; they raise AgentError."""

    def __init__(self, state: State) -> None:
        self._state = state

    def seen(self, application: str, group: str) -> int:
        """The highest that was admitted here, else 0."""
        rows = self._state.rows(
            "SELECT serial FROM serials WHERE application = ? AND deployment_group = ?",
            (application, group),
        )
        return int(rows[0]["serial"]) if rows else 0

    def remember(self, application: str, group: str, serial: int) -> None:
        """Remember a manifest's serial, unless a higher one is remembered."""
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT INTO serials VALUES (?, ?, ?) ON CONFLICT (application, deployment_group)"
                " DO UPDATE SET serial = max(serial, excluded.serial)",
                (application, group, serial),
            )
