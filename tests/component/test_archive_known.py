"""What of a tgz is known again by its bytes comes out as if every header had been read."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.archive import unpack
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from tests import unpacking
from tests.archives import APPSPEC, MTIME, make_tar, pax_entry, pax_record, tar_entry
from tests.lint.source import ROOT
from tests.unpacking import (
    BIG,
    LIMITED,
    LIMITS,
    assert_index_matches,
    listing,
    outcome,
    refuse_again,
    rows,
    unpack_bundle,
)

OCTAL_MTIME = b"%011o\0" % MTIME
SPEC = tar_entry(b"appspec.yml", APPSPEC)
LONG = b"app/" + b"long" * 40


def entry(name: bytes, content: bytes = b"", **fields: bytes) -> bytes:
    return tar_entry(name, content, mtime=OCTAL_MTIME, **fields)


FOLDER = [entry(b"app/", kind=b"5"), entry(b"app/empty/", kind=b"5")]
FILES = [entry(b"app/%02d" % number, b"%d" % number * number) for number in range(40)]


def write_tgz(path: Path, *entries: bytes) -> Path:
    path.write_bytes(gzip.compress(make_tar(*entries), 1))
    return path


def mark_old(where: Path) -> None:
    """Write a digest into the old index that no content has: it tells what is taken over."""
    with sqlite3.connect(where / "old.index") as database:
        database.execute("UPDATE entries SET digest = 'marked' WHERE whole IS NOT NULL")


def marked(index: Path) -> set[str]:
    return {str(row[0]) for row in rows(index) if row[5] == "marked"}


def redeploy(
    where: Path, before: list[bytes], after: list[bytes], limits: Limits = LIMITS
) -> unpack.Unpacked:
    """As unpacking.redeploy_marked()."""
    bundles = [gzip.compress(make_tar(*entries), 1) for entries in (before, after)]
    return unpacking.redeploy_marked(where, *bundles, mark_old, limits)


def paths(*numbers: int) -> set[str]:
    return {f"app/{number:02}" for number in numbers}


def test_what_is_the_same_is_taken_over_without_a_look_at_its_headers(tmp_path: Path) -> None:
    entries = [SPEC, *FOLDER, *FILES]
    assert redeploy(tmp_path, entries, entries).reused == 41
    assert marked(tmp_path / "again.index") == {"appspec.yml", *paths(*range(40))}


def test_a_changed_byte_in_the_middle(tmp_path: Path) -> None:
    changed = [*FILES[:7], entry(b"app/07", b"7777778"), *FILES[8:]]
    assert redeploy(tmp_path, [SPEC, *FILES], [SPEC, *changed]).reused == 40
    assert (tmp_path / "new/app/07").read_bytes() == b"7777778"
    assert marked(tmp_path / "again.index") >= paths(*range(40)) - paths(7)


def test_a_changed_byte_of_a_header(tmp_path: Path) -> None:
    changed = [*FILES[:7], entry(b"app/07", b"7777777", mode=b"0000755\0"), *FILES[8:]]
    assert redeploy(tmp_path, [SPEC, *FILES], [SPEC, *changed]).reused == 40
    assert (tmp_path / "new/app/07").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "old/app/07").stat().st_mode & 0o777 == 0o644


def test_entries_that_came_and_went(tmp_path: Path) -> None:
    after = [SPEC, entry(b"app/new", b"new"), *FILES[:9], entry(b"app/09a", b"new"), *FILES[12:]]
    assert redeploy(tmp_path, [SPEC, *FILES], after).reused == 38
    assert marked(tmp_path / "again.index") >= paths(*range(9), *range(13, 40))


def test_another_order(tmp_path: Path) -> None:
    after = [*FILES[20:], SPEC, *FILES[:20]]
    assert redeploy(tmp_path, [SPEC, *FILES], after).reused == 41
    assert len(marked(tmp_path / "again.index")) >= 38
    (tmp_path / "reversed").mkdir()
    assert redeploy(tmp_path / "reversed", [SPEC, *FILES], [SPEC, *FILES[::-1]]).reused == 41


def test_links_long_names_and_folders_between(tmp_path: Path) -> None:
    entries = [
        SPEC,
        *FOLDER,
        *FILES[:5],
        entry(b"app/link", kind=b"2", linkname=b"../appspec.yml"),
        *FILES[5:10],
        pax_entry(pax_record("path", "app/\u00e9".encode()) + pax_record("mtime", b"1.5")),
        entry(b"x", b"pax"),
        entry(b"././@LongLink", LONG + b"\0", kind=b"L"),
        entry(b"y", b"gnu"),
        entry(b"app/nothing"),
        pax_entry(pax_record("comment", b"of all"), kind=b"g"),
        *FILES[10:],
    ]
    assert redeploy(tmp_path, entries, entries).reused == 44
    again = marked(tmp_path / "again.index")
    assert again >= {"app/\u00e9", LONG.decode(), "app/nothing", *paths(*range(40))}
    assert os.readlink(tmp_path / "again/app/link") == "../appspec.yml"
    assert (tmp_path / "again/app/empty").is_dir()


def test_a_link_to_what_is_known_and_to_what_is_gone(tmp_path: Path) -> None:
    link = entry(b"link", kind=b"2", linkname=b"app/07")
    assert redeploy(tmp_path, [SPEC, *FILES], [SPEC, link, *FILES]).reused == 41
    bundle = write_tgz(tmp_path / "gone.tgz", SPEC, link, *FILES[:7], *FILES[8:])
    with pytest.raises(AgentError, match="missing"):
        unpack_bundle(bundle, "gone", reuse=(tmp_path / "old", tmp_path / "old.index"))


def test_warnings_are_given_again_and_big_files_are_linked(tmp_path: Path) -> None:
    entries = [SPEC, *FILES, entry(b"app/suid", b"s", mode=b"0004755\0"), entry(b"app/._x", b"mac"),
               entry(b"big", BIG), *(entry(b"z/%d" % n, b"z") for n in range(5))]  # fmt: skip
    result = redeploy(tmp_path, entries, entries)
    assert result.reused == 48
    assert len(result.warnings) == 2


def test_a_release_that_was_taken_over_itself(tmp_path: Path) -> None:
    entries = [SPEC, *FILES]
    unpack_bundle(write_tgz(tmp_path / "old.tgz", *entries), "old")
    for number in range(3):
        entries.insert(9 * number, entry(b"app/more%d" % number, b"more"))
        bundle = write_tgz(tmp_path / "new.tgz", *entries)
        result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
        assert result.reused == 41 + number
        unpack_bundle(bundle, f"plain{number}")
        assert rows(tmp_path / "new.index") == rows(tmp_path / f"plain{number}.index")
        for name in ("old", "new"):
            (tmp_path / name).rename(tmp_path / f"{name}{number}")
        (tmp_path / f"new{number}").rename(tmp_path / "old")
        (tmp_path / "new.index").rename(tmp_path / "old.index")


def test_wrapped_bundles_are_unpacked_as_ever(tmp_path: Path) -> None:
    wrapped = [entry(b"app/appspec.yml", APPSPEC), *FILES]
    redeploy(tmp_path, [SPEC, *FILES], wrapped)
    assert (tmp_path / "new/07").read_bytes() == b"7777777"
    (tmp_path / "back").mkdir()
    assert redeploy(tmp_path / "back", wrapped, [SPEC, *FILES]).reused == 1  # appspec.yml
    (tmp_path / "both").mkdir()
    redeploy(tmp_path / "both", wrapped, wrapped)


def spoil_content(path: Path) -> None:
    path.write_bytes(b"!" * path.stat().st_size)


@pytest.mark.parametrize(
    "spoil",
    [spoil_content, Path.unlink, lambda path: path.chmod(0o600)],
    ids=["content", "gone", "mode"],
)
def test_a_file_that_a_service_changed_is_written_anew(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    bundle = write_tgz(tmp_path / "bundle.tgz", SPEC, *FILES)
    unpack_bundle(bundle, "old")
    before = listing(tmp_path / "old")
    for number in (7, 8, 39):
        spoil(tmp_path / f"old/app/{number:02}")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 38
    assert listing(tmp_path / "new") == before
    assert rows(tmp_path / "new.index") == rows(tmp_path / "old.index")


@pytest.mark.parametrize("limits", LIMITED.values(), ids=LIMITED)
def test_limits_count_what_is_known(limits: Limits, tmp_path: Path) -> None:
    bundle = write_tgz(tmp_path / "bundle.tgz", SPEC, *FILES)
    refuse_again(bundle, limits)


E_ACUTE = "app/\u00e9".encode()
E_AND_ACUTE = "app/e\u0301".encode()


@pytest.mark.parametrize(
    "more",
    [
        [FILES[7]],
        FILES[7:9],
        FILES,
        [entry(b"app/07", b"other")],
        [entry(b"app/07/below", b"x")],
        [entry(b"app/07/", kind=b"5")],
        [entry(b"app", b"x")],
        [entry(b"app/07", kind=b"2", linkname=b"08")],
        [entry(E_AND_ACUTE, b"x")],
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_clash_with_what_is_known_is_refused(
    more: list[bytes], is_first: bool, tmp_path: Path
) -> None:
    entries = [SPEC, *FILES, entry(E_ACUTE, b"x"), *(entry(b"z/%d" % n, b"z") for n in range(9))]
    unpack_bundle(write_tgz(tmp_path / "old.tgz", *entries), "old")
    entries = [*more, *entries] if is_first else [*entries, *more]
    bundle = write_tgz(tmp_path / "new.tgz", *entries)
    with pytest.raises(AgentError) as caught:
        unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert caught.value.code is Code.BUNDLE_REFUSED
    assert not (tmp_path / "new.index").exists()
    assert "is there twice" in caught.value.message or "folder" in caught.value.message


def test_an_index_of_an_older_format_is_not_used(tmp_path: Path) -> None:
    bundle = write_tgz(tmp_path / "bundle.tgz", SPEC, *FILES)
    unpack_bundle(bundle, "old")
    with sqlite3.connect(tmp_path / "old.index") as index:
        index.execute("DROP INDEX entries_by_pos")
        for column in ("pos", "head", "whole"):
            index.execute(f"ALTER TABLE entries DROP COLUMN {column}")
        index.execute("PRAGMA user_version = 0")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 0
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


# An agent that is killed when it has told of its progress so many times.
_KILLED = """
import os, signal, sys
from pathlib import Path
from agent.archive import unpack
from agent.model.settings import Limits
from agent.system.cancel import Cancel

left = int(sys.argv[2])
where = Path(sys.argv[1])

def progress(done, total):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

unpack.unpack(where / "new.tgz", tree=where / "new", index=where / "new.index",
              limits=Limits(free_bytes=0, free_inodes=0), cancel=Cancel(), progress=progress,
              reuse=(where / "old", where / "old.index"))
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_kill_leaves_the_old_release_as_it_is(times: int, tmp_path: Path) -> None:
    entries = [SPEC, *(entry(b"app/%d" % number, b"%d" % number) for number in range(2500))]
    unpack_bundle(write_tgz(tmp_path / "old.tgz", *entries), "old")
    entries[100::500] = [entry(b"app/%d" % number, b"other") for number in range(99, 2500, 500)]
    bundle = write_tgz(tmp_path / "new.tgz", *entries)
    before = listing(tmp_path / "old")
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(times)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "new").exists()
    assert not (tmp_path / "new.index").exists()
    assert listing(tmp_path / "old") == before
    # as the step begins again: what is half done is removed
    shutil.rmtree(tmp_path / "new")
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 2496
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")
    assert listing(tmp_path / "old") == before


POOL = [
    SPEC,
    *(entry(b"%c/%d" % (folder, number), content)
      for folder in b"ab" for number in range(3) for content in (b"", b"one", b"x" * 1200)),
    entry(b"a/", kind=b"5"),
    entry(b"a", b"a file"),
    entry(b"a/0/0", b"below a file"),
    entry(b"l", kind=b"2", linkname=b"a/0"),
    entry(b"b/l", kind=b"2", linkname=b"1"),
    entry(E_ACUTE, b"x"),
    entry(E_AND_ACUTE, b"x"),
    pax_entry(pax_record("path", b"a/long")) + entry(b"x", b"pax"),
    entry(b"././@LongLink", LONG + b"\0", kind=b"L") + entry(b"y", b"gnu"),
    entry(b"b/s", b"s", mode=b"0004755\0"),
    entry(b"b/._s", b"s"),
    entry(b"big", bytes(300 * 1024)),
    entry(b"../evil", b"x"),
    bytes(512),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(60)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=st.lists(st.sampled_from(POOL), max_size=8), changes=st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8), st.lists(st.sampled_from(POOL), max_size=2)),
    max_size=2))  # fmt: skip
def test_random_changes(before: list[bytes], changes: list[tuple[int, int, list[bytes]]]) -> None:
    after = list(before)
    for first, last, more in changes:
        after[first:last] = more
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        where = Path(folder)
        outcome(write_tgz(where / "old.tgz", *before), "old", None)
        bundle = write_tgz(where / "new.tgz", *after)
        with_old = outcome(bundle, "new", (where / "old", where / "old.index"))
        assert with_old == outcome(bundle, "plain", None)
