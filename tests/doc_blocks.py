"""What the docs tell people to put into files, for tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def read(page: str, containing: str) -> str:
    """The one block of code of a page that has this text in it."""
    text = (_DOCS / page).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    [found] = [each for each in blocks if containing in each]
    return str(found)


def changed(text: str, *changes: tuple[str, str]) -> str:
    """With other words in it: pairs of old and new; each old one has to be there just once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text
