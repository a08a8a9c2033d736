"""How values, keys and near misses are put into messages, so that all of them read alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LONGEST = 60
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^?\s]*\?)\S+")


def shown(value: object, written: str = "") -> str:
    """A value for a message, shortened and on one line. written: as it stands in the file."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return repr(_cut(value))
    text = shortened(written or str(value).lower())
    return f"{text} (yes or no in YAML)" if isinstance(value, bool) else text


def name(key: str) -> str:
    """A key for a message: as it is, unless it is empty, long or not printable."""
    return key if key and len(key) <= _LONGEST and key.isprintable() else repr(_cut(key))


def shortened(text: str) -> str:
    """The text on one line, cut in its middle when it is long."""
    cut = _cut(text)
    return cut if cut.isprintable() else repr(cut)[1:-1]


def listed(words: Sequence[str], last: str = "or") -> str:
    """a, b or c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or ""."""
    plain = {_plain(each): each for each in known}
    if len(word) > _LONGEST or _plain(word) in plain:
        return plain.get(_plain(word), "")
    near = nearest(_plain(word), plain, count=1, cutoff=0.72)
    return plain[near[0]] if near else ""


def nearest(word: str, known: Iterable[str], *, count: int, cutoff: float = 0.6) -> list[str]:
    """The known words that are most like a word, at most `count`."""
    import difflib  # imported here: only for mistakes, and the daemon seldom sees one

    return difflib.get_close_matches(word, list(known), n=count, cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion, or ""."""
    near = closest(word, known)
    return f"did you mean {near}?" if near else ""


def _plain(word: str) -> str:
    """Case, blanks, dashes and underscores are what people get wrong first."""
    return word.casefold().replace(" ", "").replace("_", "").replace("-", "")


def _cut(text: str) -> str:
    """At most _LONGEST of it, and of URLs neither user nor query: they may have passwords."""
    text = _QUERY.sub(r"\1...", _USER.sub("...@", text))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 21]}...{text[-18:]}"
