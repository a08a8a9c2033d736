"""The docs say what the code does, where that can be held against it."""

from __future__ import annotations

from pathlib import Path

from agent.lifecycle import AFTERWARDS, LIFECYCLE

ROOT = Path(__file__).resolve().parents[2]


def test_lifecycle_page_is_the_table() -> None:
    found = []
    for line in (ROOT / "docs" / "lifecycle.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in ("step", "---"):
            found.append((cells[0].strip("*"), cells[2] not in ("\u2013", "none"), cells[3]))
    rows = [(row.name.value, row.undo is not None, row.crash.value) for row in LIFECYCLE]
    rows.append(("commit", False, "\u2013"))
    rows += [(row.name.value, row.undo is not None, row.crash.value) for row in AFTERWARDS]
    assert found == rows
