"""How the work of publishing is told while it goes on."""

from __future__ import annotations

from typing import Protocol


class Teller(Protocol):
    """Is told from the event loop's thread."""

    def say(self, words: str) -> None:
        """Something happened: one line."""

    def progress(self, place: str, done: int, total: int) -> None:
        """So many bytes of a transfer to or from a place are done; a total of 0 is not known."""
