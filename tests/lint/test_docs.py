"""The docs say what the code does, where that can be held against it."""

from __future__ import annotations

from pathlib import Path

from agent.lifecycle import AFTERWARDS, LIFECYCLE, RECONFIGURE, Row

ROOT = Path(__file__).resolve().parents[2]


def _rows_of(page: str) -> list[tuple[str, bool, str]]:
    """Its table of steps: name, whether there is an undo, and what a crash means."""
    found = []
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in ("step", "---"):
            found.append((cells[0].strip("*"), cells[2] not in ("\u2013", "none"), cells[3]))
    return found


def _rows(*rows: Row) -> list[tuple[str, bool, str]]:
    return [(row.name.value, row.undo is not None, row.crash.value) for row in rows]


COMMIT = ("commit", False, "\u2013")


def test_lifecycle_page_is_the_table() -> None:
    assert _rows_of("lifecycle.md") == [*_rows(*LIFECYCLE), COMMIT, *_rows(*AFTERWARDS)]


def test_environment_page_has_the_shorter_table() -> None:
    assert _rows_of("environment.md") == [*_rows(*RECONFIGURE), COMMIT]
