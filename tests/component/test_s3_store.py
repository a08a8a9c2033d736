"""A bucket of a real S3 server, which checks signatures, digests, conditions and rights."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Code, Conflict, NotFound
from agent.remote import s3_upload, stores
from agent.remote.stores import WritableStore
from tests import objectstore
from tests.objectstore import Bucket, ObjectStore
from tests.transfers import PATIENT, fetch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

BODY = random.Random(7).randbytes(3 * 2**20)
DIGEST = hashlib.sha256(BODY).hexdigest()
ODD_KEYS = ["a b+c~d", "é/ü.zip", "per%cent&=?#", "two  spaces", "star*(1)!'"]


@pytest.fixture
async def store(bucket: Bucket) -> AsyncIterator[WritableStore]:
    store = stores.open_s3(bucket.place("deploy/one"), patience=PATIENT)
    yield store
    await store.close()


def become(monkeypatch: pytest.MonkeyPatch, identity: objectstore.Identity) -> None:
    for name, value in objectstore.environment_of(identity).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def source(state_dir: Path) -> Path:
    source = state_dir / "source.zip"
    source.write_bytes(BODY)
    return source


async def test_a_pointer_is_written_and_polled(bucket: Bucket, store: WritableStore) -> None:
    written = await store.write("service/default/release.json", b"one")
    answer = await store.read("service/default/release.json")
    assert (answer.body, answer.etag) == (b"one", written.etag)
    assert (await store.read("service/default/release.json", etag=answer.etag)).body is None
    await store.write("service/default/release.json", b"two")
    again = await store.read("service/default/release.json", etag=answer.etag)
    assert again.body == b"two"
    name = "deploy/one/service/default/release.json"
    found = bucket.store.client().head_object(Bucket=bucket.name, Key=name)
    assert found["ContentType"] == "application/json"
    assert found["Metadata"]["sha256"] == hashlib.sha256(b"two").hexdigest()


async def test_only_what_was_seen_is_replaced(store: WritableStore) -> None:
    first = await store.write("pointer", b"one", replaces="")
    second = await store.write("pointer", b"two", replaces=first.etag)
    for seen in ("", first.etag):
        with pytest.raises(Conflict, match="somebody else changed it meanwhile"):
            await store.write("pointer", b"three", replaces=seen)
    answer = await store.read("pointer")
    assert (answer.body, answer.etag) == (b"two", second.etag)


async def test_a_bundle_goes_up_and_down(
    store: WritableStore, source: Path, state_dir: Path
) -> None:
    seen: list[tuple[int, int]] = []
    info = await store.upload("b.zip", source, sha256=DIGEST, progress=lambda *at: seen.append(at))
    assert (info.key, info.size) == ("b.zip", len(BODY))
    assert [total for _, total in seen] == [len(BODY)] * len(seen)
    assert len(seen) > 2  # not only once it is over
    assert seen == sorted(seen)
    assert seen[-1] == (len(BODY), len(BODY))
    fetched = await fetch(store, "b.zip", state_dir / "b", size=len(BODY))
    assert (fetched.sha256, fetched.size) == (DIGEST, len(BODY))
    head = await store.head("b.zip")
    assert head is not None
    assert (head.size, head.modified > 0) == (len(BODY), True)


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys(store: WritableStore, key: str) -> None:
    await store.write(key, b"here")
    assert (await store.read(key)).body == b"here"
    assert [each.key for each in await store.list("")] == [key]


async def test_an_empty_object(store: WritableStore, state_dir: Path) -> None:
    (state_dir / "empty").touch()
    empty = hashlib.sha256().hexdigest()
    await store.upload("e", state_dir / "empty", sha256=empty, progress=lambda *_: None)
    assert (await fetch(store, "e", state_dir / "e")).sha256 == empty


async def test_listing_has_pages(store: WritableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        await store.write(f"releases/{number}.json", b"x" * number)
    await store.write("other", b"")
    listed = await store.list("releases/")
    assert [(each.key, each.size) for each in listed] == [
        (f"releases/{number}.json", number) for number in range(7)
    ]
    assert len(await store.list("releases/", limit=3)) == 3
    assert len(await store.list("")) == 8
    assert await store.list("nothing/") == []


async def test_nothing_there(store: WritableStore, bucket: Bucket) -> None:
    assert await store.head("missing") is None
    with pytest.raises(NotFound, match=f"the bucket {bucket.name} has no 'deploy/one/missing'"):
        await store.read("missing")


async def test_no_such_bucket(bucket: Bucket) -> None:
    store = stores.open_s3(bucket.store.place("not-there-at-all"), patience=PATIENT)
    with pytest.raises(AgentError, match="there is no bucket not-there-at-all") as caught:
        await store.read("x")
    assert not isinstance(caught.value, NotFound)  # it is no object that was never written
    await store.close()


async def test_a_version_is_fetched(
    object_store: ObjectStore, bucket: Bucket, state_dir: Path
) -> None:
    """bucket: for its credentials."""
    versioned = objectstore.make_bucket(object_store, versions=True)
    store = stores.open_s3(versioned.place(), patience=PATIENT)
    first = await store.write("b", b"first")
    second = await store.write("b", b"second")
    assert first.version_id
    assert first.version_id != second.version_id
    assert (await store.read("b")).version_id == second.version_id
    fetched = await fetch(store, "b", state_dir / "b", version_id=first.version_id)
    assert fetched.sha256 == hashlib.sha256(b"first").hexdigest()
    with pytest.raises(AgentError):
        await fetch(store, "b", state_dir / "c", version_id="0" * 32)
    await store.close()


async def test_a_part_is_gone_on_with(store: WritableStore, state_dir: Path) -> None:
    """And only with the same object's: S3 checks If-Match."""
    small = BODY[:500_000]
    digest = hashlib.sha256(small).hexdigest()
    written = await store.write("b", small)
    target = state_dir / "b"
    for etag in (written.etag, '"other"'):
        leave_a_part(target, store.url_of("b"), etag)
        assert (await fetch(store, "b", target)).sha256 == digest


def leave_a_part(target: Path, url: str, etag: str) -> None:
    """As a run leaves it that was killed."""
    target.write_bytes(BODY[:100_000])
    origin = json.dumps([f"{url}?", etag])
    os.setxattr(target, "user.deploy-agent.origin", origin.encode())


async def test_large_files_go_up_in_parts(
    bucket: Bucket, store: WritableStore, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * 2**20)
    body = BODY * 8 + b"rest"
    (state_dir / "large").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    seen: list[tuple[int, int]] = []
    info = await store.upload(
        "large", state_dir / "large", sha256=digest, progress=lambda *at: seen.append(at)
    )
    assert info.etag.endswith('-5"')  # S3's, of parts: the digest of nothing
    assert seen[-1] == (len(body), len(body))
    assert (await fetch(store, "large", state_dir / "back")).sha256 == digest
    found = bucket.store.client().head_object(Bucket=bucket.name, Key="deploy/one/large")
    assert found["Metadata"]["sha256"] == digest


@pytest.mark.parametrize("parts", [True, False])
async def test_a_file_that_is_another_one_is_not_published(
    bucket: Bucket,
    store: WritableStore,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    parts: bool,
) -> None:
    """Neither is anything left of it, that would be paid for."""
    if parts:
        monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 1000)
    with pytest.raises(AgentError, match="was to be published") as caught:
        await store.upload("b", source, sha256="0" * 64, progress=lambda *_: None)
    assert caught.value.code is Code.BUNDLE_CHANGED
    assert await store.head("b") is None
    pending = bucket.store.client().list_multipart_uploads(Bucket=bucket.name)
    assert not pending.get("Uploads")


async def test_what_changes_on_its_way_is_refused_by_the_store(
    store: WritableStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body does not have the digest that was signed."""
    monkeypatch.setattr(s3_upload.Upload, "_check_digest", lambda *_: None)
    with pytest.raises(AgentError):
        await store.upload("b", source, sha256="0" * 64, progress=lambda *_: None)
    assert await store.head("b") is None


async def test_denied(
    bucket: Bucket, store: WritableStore, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not read is told what is missing; who may read may not write."""
    await store.write("b", b"bundle")
    become(monkeypatch, objectstore.NOBODY)
    nobody = stores.open_s3(bucket.place("deploy/one"), patience=PATIENT)
    denied = rf"access denied \(bucket {bucket.name}, region us-east-1\): s3:GetObject is missing"
    with pytest.raises(AgentError, match=denied) as caught:
        await nobody.read("b")
    assert caught.value.code is Code.SOURCE_DENIED
    assert f"Allow s3:GetObject on arn:aws:s3:::{bucket.name}/deploy/one/b" in caught.value.remedy
    with pytest.raises(AgentError, match="s3:ListBucket is missing"):
        await nobody.list("")
    with pytest.raises(AgentError, match="access denied"):
        await nobody.head("b")
    await nobody.close()
    become(monkeypatch, objectstore.READER)
    reader = stores.open_s3(bucket.place("deploy/one"), patience=PATIENT)
    assert (await fetch(reader, "b", state_dir / "b")).size == 6
    with pytest.raises(AgentError, match="s3:PutObject is missing"):
        await reader.write("b", b"")
    large = bytes(8 * 2**20)
    await asyncio.to_thread((state_dir / "large").write_bytes, large)
    digest = hashlib.sha256(large).hexdigest()
    with pytest.raises(AgentError, match="s3:PutObject is missing"):
        await reader.upload("l", state_dir / "large", sha256=digest, progress=lambda *_: None)
    await reader.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "the secret key does not belong to the access key"),
        ("AWS_ACCESS_KEY_ID", "AWS does not know these credentials"),
    ],
)
async def test_wrong_keys(
    store: WritableStore, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv(name, "WRONG-ONE")
    with pytest.raises(AgentError, match=words) as caught:
        await store.read("b")
    said = (caught.value.message, *caught.value.details, caught.value.remedy)
    assert "WRONG-ONE" not in str(said)
    assert caught.value.code is Code.SOURCE_DENIED


async def test_virtual_hosted_names_are_for_others(bucket: Bucket) -> None:
    """Without path_style the bucket is part of the name, which loopback does not resolve."""
    place = dataclasses.replace(bucket.place(), endpoint="http://s3.invalid", path_style=False)
    store = stores.open_s3(place, patience=PATIENT)
    with pytest.raises(AgentError, match=f"the name {bucket.name}.s3.invalid is not known"):
        await store.read("x")
    await store.close()
