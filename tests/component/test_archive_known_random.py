"""Random zips over a release of another: the same as if nothing had been there before."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model.errors import Code
from tests.archives import APPSPEC, ZipEntry, make_zip
from tests.archives_again import KNOWN, SPEC, twins
from tests.unpacking import assert_index_matches, outcome, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


GOOD = [
    SPEC,
    *(ZipEntry(b"%c/%d" % (folder, number), content, method=method)
      for folder in b"ab" for number in range(3)
      for content, method in ((b"", 0), (b"one", 0), (b"x" * 1200, 8))),
    ZipEntry(b"a/", mode=0o040755),
    ZipEntry("app/\u00e9".encode(), b"x"),
    ZipEntry(b"./a/dot", b"x"),
    ZipEntry(b"a/cp437\x81", b"x", flags=0),
    ZipEntry(b"b/times", b"x", extra=b"UT\5\0\1time"),
    ZipEntry(b"b/s", b"s", mode=0o104755),
    ZipEntry(b"b/._s", b"s"),
    ZipEntry(b"b/l", b"../a", mode=0o120777, method=0),
    ZipEntry(b"big", bytes(300 * 1024), method=0),
    ZipEntry(b"app/appspec.yml", APPSPEC),
    ZipEntry(b"a/twin", twins()[0], method=0),
    ZipEntry(b"a/twin", twins()[1], method=0),
    ZipEntry(b"a/1", b"x" * 1200, local=ZipEntry(b"a/1", b"x" * 1200, extra=b"xx\4\0long")),
]  # fmt: skip
POOL = [
    *GOOD,
    ZipEntry(b"a", b"a file"),
    ZipEntry(b"a/0/0", b"below a file"),
    ZipEntry("app/e\u0301".encode(), b"x"),
    ZipEntry(b"l", b"a/0", mode=0o120777, method=0),
    ZipEntry(b"../evil", b"x"),
    ZipEntry(b"a/1", b"x", local=ZipEntry(b"a/2", b"x")),
    ZipEntry(b"a/1", b"x" * 1200, crc=7),
]
RANDOMLY = settings(max_examples=80, deadline=None)
entries = st.lists(st.sampled_from(GOOD), max_size=8, unique_by=lambda entry: entry.name)
offsets = st.one_of(st.none(), st.integers(0, 500), st.sampled_from([2**31, 2**32 - 2, 2**32 - 1]))


def assert_same_outcome(before: bytes, after: bytes, *, with_times: bool = True) -> None:
    """Unpack `after` over `before` and alone. Of several faults, each may find another first."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        where = Path(folder)
        (where / "old.zip").write_bytes(before)
        (where / "new.zip").write_bytes(after)
        outcome(where / "old.zip", "old", None)
        found = []
        for name, reuse in (("new", (where / "old", where / "old.index")), ("plain", None)):
            result = outcome(where / "new.zip", name, reuse)
            if isinstance(result, Code):
                assert result in (Code.BUNDLE_REFUSED, Code.BUNDLE_DAMAGED)
                result = "no"
            elif not with_times:
                assert_index_matches(where / name, where / f"{name}.index")
                result = [(*row[:4], *row[5:]) for row in rows(where / f"{name}.index")]
            found.append(result)
        assert found[0] == found[1]


@RANDOMLY
@given(before=entries, changes=st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8), st.lists(st.sampled_from(POOL), max_size=2)),
    max_size=2))  # fmt: skip
def test_random_changes(
    before: list[ZipEntry], changes: list[tuple[int, int, list[ZipEntry]]]
) -> None:
    after = list(before)
    for first, last, more in changes:
        after[first:last] = more
    assert_same_outcome(make_zip(*before), make_zip(*after))


@RANDOMLY
@given(before=entries, moves=st.lists(st.tuples(st.integers(0, 7), offsets), max_size=3),
       listed=st.permutations(range(8)), is_old_too=st.booleans())  # fmt: skip
def test_random_places(
    before: list[ZipEntry],
    moves: list[tuple[int, int | None]],
    listed: list[int],
    is_old_too: bool,
) -> None:
    after = list(before)
    for number, offset in moves:
        if number < len(after):
            after[number] = replace(after[number], offset=offset)
    order = [number for number in listed if number < len(after)]
    old = make_zip(*before, listed=order if is_old_too else None)
    assert_same_outcome(old, make_zip(*after, listed=None if is_old_too else order))


_TIMED = [*(replace(entry, extra=b"UT\5\0\1time") for entry in KNOWN[:9]), ZipEntry(b"z", b"z")]


@RANDOMLY
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3))
def test_random_damage(changes: list[tuple[int, int]]) -> None:
    """It is seen, or does not matter: with what was there before, and without."""
    before = make_zip(*_TIMED)
    after = bytearray(before)
    for at, value in changes:
        after[at % len(after)] = value
    assert_same_outcome(before, bytes(after), with_times=False)
