"""What of a zip is known again by its records comes out as if all of them had been read."""

from __future__ import annotations

import gzip
import os
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from agent.archive import unpack
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from tests import unpacking
from tests.archives import APPSPEC, MTIME, ZipEntry, make_zip, make_zip64, small_tar
from tests.archives_again import AGAIN, FILES, KNOWN, SPEC, Again, changed, local, twins
from tests.unpacking import (
    BIG,
    LIMITED,
    LIMITS,
    assert_index_matches,
    listing,
    make_folder,
    pack,
    refuse_again,
    rows,
    unpack_bundle,
)

FOLDER = [ZipEntry(b"app/", mode=0o040755), ZipEntry(b"app/empty/", mode=0o040755)]
LINK = ZipEntry(b"app/link", b"../appspec.yml", mode=0o120777, method=0)
NEXT_DAY = 0x5C22


def mark_old(where: Path) -> None:
    """Write into the old index what no zip gives: it tells what is taken over."""
    with sqlite3.connect(where / "old.index") as database:
        database.execute("UPDATE entries SET head = 1 WHERE whole IS NOT NULL")


def marked(index: Path) -> set[str]:
    return {str(row[0]) for row in rows(index) if row[9] == 1}


def redeploy(
    where: Path, before: list[ZipEntry], after: list[ZipEntry], limits: Limits = LIMITS
) -> unpack.Unpacked:
    """As unpacking.redeploy_marked()."""
    return unpacking.redeploy_marked(where, make_zip(*before), make_zip(*after), mark_old, limits)


def paths(*numbers: int) -> set[str]:
    return {f"app/{number:02}" for number in numbers}


def test_what_is_the_same_is_taken_over_without_a_look_at_its_records(tmp_path: Path) -> None:
    entries = [SPEC, *FOLDER, *FILES]
    assert redeploy(tmp_path, entries, entries).reused == 41
    assert marked(tmp_path / "again.index") == {"appspec.yml", *paths(*range(40))}


@pytest.mark.parametrize(
    "fields",
    [{"content": b"7777778"}, {"mode": 0o100755}, {"comment": b"new"}, {"method": 0}],
    ids=["content", "mode", "comment", "method"],
)
def test_one_that_is_changed(fields: dict[str, object], tmp_path: Path) -> None:
    redeploy(tmp_path, KNOWN, changed(8, **fields))
    assert marked(tmp_path / "again.index") == {"appspec.yml", *paths(*range(40))} - paths(7)


def test_entries_that_came_and_went(tmp_path: Path) -> None:
    after = [SPEC, ZipEntry(b"app/new", b"new"), *FILES[:9], ZipEntry(b"app/x", b"x"), *FILES[12:]]
    assert redeploy(tmp_path, KNOWN, after).reused == 38
    assert marked(tmp_path / "again.index") >= paths(*range(9), *range(13, 40))


def test_another_order(tmp_path: Path) -> None:
    assert redeploy(tmp_path, KNOWN, [*FILES[20:], SPEC, *FILES[:20]]).reused == 41
    assert len(marked(tmp_path / "again.index")) >= 38
    (tmp_path / "reversed").mkdir()
    assert redeploy(tmp_path / "reversed", KNOWN, KNOWN[::-1]).reused == 41


@pytest.mark.slow
def test_records_in_another_order_than_their_entries(tmp_path: Path) -> None:
    """A place in the directory says nothing of the place in the zip."""
    entries = [SPEC, LINK, *FILES[:20], ZipEntry(b"app/big", BIG), *FILES[20:]]
    listed = [*range(5, len(entries)), *range(5)]
    for number, (before, after) in enumerate([(None, listed), (listed, None), (listed, listed)]):
        (tmp_path / str(number)).mkdir()
        bundles = make_zip(*entries, listed=before), make_zip(*entries, listed=after)
        assert unpacking.redeploy(tmp_path / str(number), *bundles).reused == 42


def test_links_folders_and_names_between(tmp_path: Path) -> None:
    more = [
        ZipEntry("app/\u00e9".encode(), b"x"),
        ZipEntry(b"./app/dot", b"x"),
        ZipEntry(b"app/cp437\x81", b"x", flags=0),
        ZipEntry(b"app/nothing", method=0),
    ]
    entries = [SPEC, *FOLDER, *FILES[:5], LINK, *FILES[5:10], *more, *FILES[10:]]
    assert redeploy(tmp_path, entries, entries).reused == 45
    again = marked(tmp_path / "again.index")
    assert again == {"appspec.yml", "app/\u00e9", "app/dot", "app/cp437\u00fc", "app/nothing",
                     *paths(*range(40))}  # fmt: skip
    assert os.readlink(tmp_path / "again/app/link") == "../appspec.yml"
    assert (tmp_path / "again/app/empty").is_dir()


def test_a_link_to_what_is_known_and_to_what_is_gone(tmp_path: Path) -> None:
    link = replace(LINK, content=b"07")
    assert redeploy(tmp_path, KNOWN, [link, *KNOWN]).reused == 41
    bundle = tmp_path / "gone.zip"
    bundle.write_bytes(make_zip(link, *KNOWN[:8], *KNOWN[9:]))
    with pytest.raises(AgentError, match="missing"):
        unpack_bundle(bundle, "gone", reuse=(tmp_path / "old", tmp_path / "old.index"))


def test_warnings_are_given_again_and_big_files_are_linked(tmp_path: Path) -> None:
    entries = [*KNOWN, ZipEntry(b"app/suid", b"s", mode=0o104755), ZipEntry(b"app/._x", b"mac"),
               ZipEntry(b"big", BIG), *(ZipEntry(b"z/%d" % n, b"z") for n in range(5))]  # fmt: skip
    result = redeploy(tmp_path, entries, entries)
    assert result.reused == 48
    assert len(result.warnings) == 2
    assert not marked(tmp_path / "again.index") & {"app/suid", "app/._x", "big"}


def test_a_release_that_was_taken_over_itself(tmp_path: Path) -> None:
    entries = list(KNOWN)
    (tmp_path / "old.zip").write_bytes(make_zip(*entries))
    unpack_bundle(tmp_path / "old.zip", "old")
    bundle = tmp_path / "new.zip"
    for number in range(3):
        entries.insert(9 * number, ZipEntry(b"app/more%d" % number, b"more"))
        bundle.write_bytes(make_zip(*entries))
        result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
        assert result.reused == 41 + number
        unpack_bundle(bundle, f"plain{number}")
        assert rows(tmp_path / "new.index") == rows(tmp_path / f"plain{number}.index")
        (tmp_path / "old").rename(tmp_path / f"old{number}")
        (tmp_path / "new").rename(tmp_path / "old")
        (tmp_path / "new.index").rename(tmp_path / "old.index")


def test_wrapped_bundles_are_unpacked_as_ever(tmp_path: Path) -> None:
    wrapped = [ZipEntry(b"app/appspec.yml", APPSPEC), *FILES]
    redeploy(tmp_path, KNOWN, wrapped)
    assert (tmp_path / "new/07").read_bytes() == b"7777777"
    (tmp_path / "back").mkdir()
    redeploy(tmp_path / "back", wrapped, KNOWN)
    (tmp_path / "both").mkdir()
    assert redeploy(tmp_path / "both", wrapped, wrapped).reused == 41
    assert not marked(tmp_path / "both/again.index")


@pytest.mark.parametrize("is_zip_first", [True, False])
def test_a_zip_after_a_tgz_and_the_other_way_round(is_zip_first: bool, tmp_path: Path) -> None:
    files = {entry.name.decode(): entry.content for entry in KNOWN}
    entries = [replace(entry, date=0x576E, method=0) for entry in KNOWN]
    bundles = [make_zip(*entries), gzip.compress(small_tar(files))]
    old, new = bundles if is_zip_first else bundles[::-1]
    (tmp_path / "old.bundle").write_bytes(old)
    (tmp_path / "new.bundle").write_bytes(new)
    unpack_bundle(tmp_path / "old.bundle", "old")
    reuse = (tmp_path / "old", tmp_path / "old.index")
    assert unpack_bundle(tmp_path / "new.bundle", reuse=reuse).reused == 41
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["zip", "zip -y", "python zip"])
def test_a_build_that_stamps_all_files_anew(tool: str, tmp_path: Path) -> None:
    """zip(1) has times in the records, and once more in extra fields."""
    folder = make_folder(tmp_path / "packed")
    unpack_bundle(pack(tool, folder, tmp_path / "old.zip"), "old")
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (MTIME + 5000 + number, MTIME + 6000 + number), follow_symlinks=False)
    bundle = pack(tool, folder, tmp_path / "new.zip")
    mark_old(tmp_path)
    assert unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index")).reused == 6
    small = {
        "appspec.yml",
        "scripts/start.sh",
        "data/nothing",
        "data/secret",
        "data/deep/er/é ü.txt",
    }
    assert marked(tmp_path / "new.index") == small
    assert listing(tmp_path / "new") == listing(tmp_path / "old")


class Pipe:
    """What is written cannot be gone back to."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass


def test_sizes_behind_the_content(tmp_path: Path) -> None:
    """As zips are written into pipes: local headers without sizes and CRC."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in KNOWN:
            packed.writestr(zipfile.ZipInfo(entry.name.decode()), entry.content)
    bundle = b"".join(pipe.pieces)
    assert bundle[6] & 8
    assert unpacking.redeploy(tmp_path, bundle, bundle).reused == 41


def test_what_is_in_zip64_fields_or_long_is_read_as_ever(tmp_path: Path) -> None:
    bundle = make_zip64(ZipEntry(b"f", b"x"))
    assert unpacking.redeploy(tmp_path, bundle, bundle).reused == 1
    assert [row[10] for row in rows(tmp_path / "new.index")] == [None]
    (tmp_path / "long").mkdir()
    entries = [SPEC, *(replace(entry, comment=b"c" * 2000) for entry in FILES)]
    assert redeploy(tmp_path / "long", entries, entries).reused == 41
    assert marked(tmp_path / "long/again.index") == {"appspec.yml"}


def test_an_extra_field_that_is_cut_off(tmp_path: Path) -> None:
    extras = [b"UT\5\0\1abcd"[: number + 1] for number in range(9)]
    entries = [
        replace(FILES[number], extra=extra, comment=b"old!") for number, extra in enumerate(extras)
    ]
    after = [replace(entry, comment=b"new!") for entry in entries]
    assert redeploy(tmp_path, [SPEC, *entries], [SPEC, *entries]).reused == 10
    (tmp_path / "other").mkdir()
    redeploy(tmp_path / "other", [SPEC, *entries], [SPEC, *after])
    assert marked(tmp_path / "other/again.index") == {"appspec.yml"}


def test_another_content_of_the_same_size_and_crc(tmp_path: Path) -> None:
    """Its record is the old one; its packed bytes are not, and so it is written, with its time."""
    one, other = twins()
    before = [*KNOWN, ZipEntry(b"app/twin", one, method=0), ZipEntry(b"app/z", b"z")]
    after = [replace(entry, date=NEXT_DAY) for entry in before]
    after[-2] = replace(after[-2], content=other)
    (tmp_path / "old.zip").write_bytes(make_zip(*before))
    (tmp_path / "new.zip").write_bytes(make_zip(*after))
    unpack_bundle(tmp_path / "old.zip", "old")
    mark_old(tmp_path)
    result = unpack_bundle(tmp_path / "new.zip", reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 42
    assert marked(tmp_path / "new.index") == {"appspec.yml", "app/z", *paths(*range(40))}
    unpack_bundle(tmp_path / "new.zip", "plain")
    found = listing(tmp_path / "new")["app/twin"]
    assert found == listing(tmp_path / "plain")["app/twin"]
    assert found[2] == other
    assert_index_matches(tmp_path / "new", tmp_path / "new.index")
    # and it is known as what it is from there on
    reuse = (tmp_path / "new", tmp_path / "new.index")
    assert unpack_bundle(tmp_path / "new.zip", "next", reuse=reuse).reused == 43


@pytest.mark.parametrize("fields", [{"date": NEXT_DAY}, {"extra": b"xx\4\0long"}])
def test_what_may_differ_in_a_local_header(fields: dict[str, object], tmp_path: Path) -> None:
    bundles = make_zip(*KNOWN), make_zip(*local(20, **fields))
    assert unpacking.redeploy(tmp_path, *bundles).reused == 41


@pytest.mark.parametrize("case", AGAIN, ids=lambda case: case.name)
def test_hostile_zips_over_what_is_known(case: Again, tmp_path: Path) -> None:
    (tmp_path / "old.zip").write_bytes(case.old)
    unpack_bundle(tmp_path / "old.zip", "old")
    before = listing(tmp_path / "old")
    bundle = tmp_path / "new.zip"
    bundle.write_bytes(case.zip)
    for name, reuse in (("plain", None), ("new", (tmp_path / "old", tmp_path / "old.index"))):
        with pytest.raises(AgentError) as caught:
            unpack_bundle(bundle, name, reuse=reuse)
        assert caught.value.code is case.code, (name, caught.value.message)
        assert (tmp_path / name).exists() is case.is_late
        assert not (tmp_path / f"{name}.index").exists()
    assert listing(tmp_path / "old") == before


@pytest.mark.parametrize("limits", LIMITED.values(), ids=LIMITED)
def test_limits_count_what_is_known(limits: Limits, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(make_zip(*KNOWN))
    refuse_again(bundle, limits)


@pytest.mark.parametrize(
    "more",
    [
        ZipEntry(b"app/07", b"other"),
        ZipEntry(b"app/07/below", b"x"),
        ZipEntry(b"app/07/", mode=0o040755),
        ZipEntry(b"app", b"x"),
        ZipEntry(b"app/07", b"08", mode=0o120777),
        ZipEntry("app/e\u0301".encode(), b"x"),
    ],
    ids=lambda entry: repr(entry.name),
)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_clash_with_what_is_known_is_refused(
    more: ZipEntry, is_first: bool, tmp_path: Path
) -> None:
    entries = [*KNOWN, ZipEntry("app/\u00e9".encode(), b"x")]
    (tmp_path / "old.zip").write_bytes(make_zip(*entries))
    unpack_bundle(tmp_path / "old.zip", "old")
    bundle = tmp_path / "new.zip"
    bundle.write_bytes(make_zip(more, *entries) if is_first else make_zip(*entries, more))
    with pytest.raises(AgentError) as caught:
        unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert caught.value.code is Code.BUNDLE_REFUSED
    assert not (tmp_path / "new").exists()


def test_files_that_a_service_changed_are_written_anew(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(make_zip(*KNOWN))
    unpack_bundle(bundle, "old")
    before = listing(tmp_path / "old")
    (tmp_path / "old/app/07").write_bytes(b"!" * 7)
    (tmp_path / "old/app/08").unlink()
    (tmp_path / "old/app/39").chmod(0o600)
    result = unpack_bundle(bundle, reuse=(tmp_path / "old", tmp_path / "old.index"))
    assert result.reused == 38
    assert listing(tmp_path / "new") == before
    assert rows(tmp_path / "new.index") == rows(tmp_path / "old.index")
