"""Parts of publishing that need no store: describing a bundle, comparing two, summing up."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from agent.cli import publishing, text
from agent.model.errors import AgentError, Code
from agent.model.manifest import BundleRef
from agent.publish import bundle_file, diff, layout
from agent.publish.diff import FileChange
from agent.publish.results import (
    BundleResult,
    GroupResult,
    Outcome,
    PointerResult,
    Publication,
    TargetResult,
)

APPSPEC = "version: 0.0\nos: linux\nfiles: [{source: app, destination: /opt/app}]\n"
DESCRIBED = {
    "schema": 1,
    "version": "1.214",
    "application": "go-service",
    "commit": "abc",
    "built_at": "2026-11-25T12:00:00Z",
    "unpacked": {"bytes": 9, "files": 2},
    "compatible": {"arch": ["amd64"]},
}


def make_zip(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"appspec.yml": APPSPEC, "app": "app", **files}.items():
            archive.writestr(name, content)
    return path


def test_what_a_bundle_says_of_itself(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip", **{"release.json": json.dumps(DESCRIBED)})
    found = bundle_file.describe(path, version="1.214")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.bundle == BundleRef(f"../bundles/{digest}.zip", digest, path.stat().st_size)
    assert (found.version, found.application, found.commit) == ("1.214", "go-service", "abc")
    assert found.unpacked is not None
    assert (found.unpacked.files, found.compatible.arch, found.serial) == (2, ("amd64",), 0)


def test_what_it_does_not_say_is_given(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip")
    found = bundle_file.describe(path, version="1.214", application="shop")
    assert (found.version, found.application) == ("1.214", "shop")
    assert found.unpacked is not None
    assert (found.unpacked.bytes, found.unpacked.files) == (len(APPSPEC) + 3, 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "it does not say its version"),
        ({"version": "1.214"}, "it does not say its application"),
        ({"version": "1 214", "application": "shop"}, "version must be a word"),
    ],
)
def test_what_is_missing(tmp_path: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(AgentError, match=said):
        bundle_file.describe(make_zip(tmp_path / "b.zip"), **given)


def test_a_contradiction_and_a_bundle_that_no_host_takes(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "b.zip", **{"release.json": json.dumps(DESCRIBED)})
    with pytest.raises(AgentError, match=r"it is version 1\.214, not 1\.215"):
        bundle_file.describe(path, version="1.215")
    with pytest.raises(AgentError) as caught:
        bundle_file.describe(make_zip(tmp_path / "b.zip", **{"../x": "evil"}), version="1")
    assert caught.value.code is Code.BUNDLE_REFUSED
    with pytest.raises(AgentError, match="it has 1 error") as caught:
        bundle_file.describe(make_zip(tmp_path / "b.zip", **{"appspec.yml": "os: linux"}))
    assert "has no version" in caught.value.details[0]


def test_what_differs_between_two_bundles(tmp_path: Path) -> None:
    old = make_zip(tmp_path / "old.zip", gone="12", same="x", other="abc", moved="1")
    new = make_zip(tmp_path / "new.zip", come="1", same="x", other="abd", moved="1234")
    assert diff.changes(old, new) == (
        FileChange("come", None, 1),
        FileChange("gone", 2, None),
        FileChange("moved", 1, 4),
        FileChange("other", 3, 3),
    )


def test_keys_of_objects() -> None:
    text_ = b"{}"
    digest = hashlib.sha256(text_).hexdigest()
    assert layout.signature_key("shop", "canary", text_) == f"shop/canary/{digest}.minisig"
    assert layout.indexed_version(layout.index_key("shop", "1.2")) == "1.2"
    assert layout.indexed_version("shop/releases/x.txt") == ""


def publication(*pointers: PointerResult, fails: bool = False, dry: bool = False) -> Publication:
    failure = AgentError("cannot reach it", code=Code.SOURCE_UNAVAILABLE) if fails else None
    targets = [
        TargetResult(f"t{number}", "s3://b", [GroupResult("default", pointer=pointer)],
                     BundleResult.THERE, failure if pointer is PointerResult.KEPT else None)
        for number, pointer in enumerate(pointers)
    ]  # fmt: skip
    bundle = BundleRef("../bundles/x.zip", "ab" * 32, 1000)
    return Publication("production", "shop", "1.2", bundle, "test", dry, targets)


FLIPPED, RIGHT, KEPT = PointerResult.FLIPPED, PointerResult.RIGHT, PointerResult.KEPT
WOULD = PointerResult.WOULD_FLIP


@pytest.mark.parametrize(
    ("pointers", "outcome"),
    [
        ((FLIPPED, RIGHT), Outcome.DONE),
        ((RIGHT, RIGHT), Outcome.DONE),
        ((WOULD, RIGHT), Outcome.DONE),
        ((FLIPPED, KEPT), Outcome.PARTIAL),
        ((RIGHT, KEPT), Outcome.PARTIAL),
        ((KEPT, KEPT), Outcome.FAILED),
    ],
)
def test_outcome(pointers: tuple[PointerResult, ...], outcome: Outcome) -> None:
    assert publication(*pointers, fails=True).outcome is outcome


@pytest.mark.parametrize(
    ("pointers", "said"),
    [
        ((FLIPPED, RIGHT), "shop 1.2 is desired in production now: 1 pointer flipped"),
        ((RIGHT,), "shop 1.2 is desired everywhere in production already: no pointer to flip"),
        ((WOULD, WOULD), "shop 1.2 would be desired in production: 2 pointers would be flipped"),
    ],
)
def test_last_line(pointers: tuple[PointerResult, ...], said: str) -> None:
    assert publishing.lines(publication(*pointers), text.PLAIN)[-1] == said
