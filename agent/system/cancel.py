"""A flag that tells blocking work in a thread to stop at its next safe point."""

from __future__ import annotations

import threading

from agent.model.errors import Code, Interrupted


class Cancel:
    """Set once, from any thread; blocking work calls check() between its pieces."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""

    def set(self, reason: str) -> None:
        """Ask the work to stop; the first reason stands."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    def is_set(self) -> bool:
        """Whether the work was asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Interrupted if the work was asked to stop."""
        if self._event.is_set():
            raise Interrupted(self._reason, code=Code.ABORTED)
