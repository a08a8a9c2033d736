"""Every hostile archive is refused by its own rule, and nothing lands outside of the tree."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.archive import unpack
from agent.model.errors import AgentError
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import archives, inflating
from tests.archives import Hostile
from tests.trees import fingerprint

LIMITS = Limits(free_bytes=0, free_inodes=0)


def unpack_bundle(bundle: Path, where: Path, limits: Limits = LIMITS) -> unpack.Unpacked:
    return unpack.unpack(
        bundle,
        tree=where / "tree",
        index=where / "index",
        limits=limits,
        cancel=Cancel(),
        progress=lambda _done, _total: None,
    )


def content_bytes(tree: Path) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(tree)
        for name in names
    )


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A folder with something in it that must stay as it is, and a place to unpack in it."""
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "good").write_text("keep me")
    (tmp_path / "evil").write_text("keep me too")
    return tmp_path


@pytest.mark.parametrize("case", archives.HOSTILE, ids=lambda case: case.name)
def test_hostile_archive_is_refused(case: Hostile, yard: Path) -> None:
    refuse(case, yard)


def refuse(case: Hostile, yard: Path) -> None:
    bundle = yard / "bundle"
    bundle.write_bytes(case.make())
    before = fingerprint(yard)
    limits = replace(LIMITS, **case.limits)
    where = yard / "releases"
    with pytest.raises(AgentError) as caught:
        unpack_bundle(bundle, where, limits)
    error = caught.value
    assert error.code is case.code, error.message
    for words in case.says:
        assert words in error.message
    assert error.message.startswith("cannot unpack the bundle: ")
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert error.remedy
    assert error.where == str(bundle)
    after = {
        name: value
        for name, value in fingerprint(yard).items()
        if not name.startswith("releases/tree") and name not in (".", "releases")
    }
    assert after == {name: before[name] for name in before if name not in (".", "releases")}
    if case.name.startswith("tgz"):  # written as it is admitted, never beyond a limit
        assert content_bytes(where / "tree") <= limits.unpacked_bytes
    assert not os.path.lexists("/tmp/evil")


# these are found only when the content is read
_LATE = ("another", "encrypted in the local", "header says", "header of", "wrong crc", "deflate",
         "content goes on")  # fmt: skip
EARLY = [
    case
    for case in archives.HOSTILE
    if not case.name.startswith("tgz") and not any(words in case.name for words in _LATE)
]


INFLATED = [
    case
    for case in archives.HOSTILE
    if case in archives.TGZS[len(archives.TARS) :]
    or (case in archives.ZIPS and any(words in case.name for words in _LATE))
]


@pytest.mark.slow
@pytest.mark.parametrize("case", INFLATED, ids=lambda case: case.name)
def test_without_isal_it_is_refused_as_well(case: Hostile, yard: Path) -> None:
    with inflating.by("zlib"):
        refuse(case, yard)


@pytest.mark.slow
@pytest.mark.parametrize("case", EARLY, ids=lambda case: case.name)
def test_nothing_is_written_before_all_entries_are_judged(case: Hostile, yard: Path) -> None:
    bundle = yard / "bundle"
    bundle.write_bytes(case.make())
    with pytest.raises(AgentError):
        unpack_bundle(bundle, yard / "releases", replace(LIMITS, **case.limits))
    assert not (yard / "releases" / "tree").exists()
