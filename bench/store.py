"""The agent and a store: a big bundle out of S3, and what asking a pointer costs."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.formats import manifest
from agent.model.manifest import BundleRef, Manifest
from tests import objectstore
from tests.objectstore import ADMIN, ObjectStore
from tests.web_server import Request, answer, file_answer, web_server

BUCKET = "bench"
POINTER = "service/default/release.json"
_PART_BYTES = 64 * 2**20


def pointer_of(bundle: Path) -> bytes:
    """An unsigned manifest of a bundle that lies at service/bundles/."""
    with bundle.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return manifest.dump_manifest(
        Manifest(
            version="1",
            application="service",
            deployment_group="default",
            bundle=BundleRef(f"../bundles/{digest}.zip", digest, bundle.stat().st_size),
            serial=1,
        )
    )


def config(endpoint: str, **more: object) -> str:
    """Lines of agent.yaml for an agent that follows the pointer in the bucket."""
    source = {
        "type": "s3",
        "url": f"s3://{BUCKET}",
        "application": "service",
        "region": "us-east-1",
        "endpoint": endpoint,
        "path_style": True,
    }
    return f"sources: {json.dumps([{**source, **more}])}\n"


@contextmanager
def filled(bundle: Path) -> Iterator[tuple[ObjectStore, str]]:
    """A store with a bundle and its pointer; the key of the bundle. The environment may read it."""
    before = dict(os.environ)
    os.environ.update(objectstore.environment_of(ADMIN))
    try:
        with objectstore.object_store() as store:
            client: Any = store.client()
            client.create_bucket(Bucket=BUCKET)
            text = pointer_of(bundle)
            found = manifest.parse_pointer(text)
            assert found.bundle is not None
            key = f"service/bundles/{found.bundle.sha256}.zip"
            upload(client, bundle, key)
            client.put_object(Bucket=BUCKET, Key=POINTER, Body=text)
            yield store, key
    finally:
        os.environ.clear()
        os.environ.update(before)


def upload(client: Any, bundle: Path, key: str) -> None:
    """In parts, as whatever is this big is uploaded."""
    begun = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    where = {"Bucket": BUCKET, "Key": key, "UploadId": begun}
    parts = []
    with bundle.open("rb") as file:
        while piece := file.read(_PART_BYTES):
            number = len(parts) + 1
            done = client.upload_part(**where, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def curl(store: ObjectStore, key: str, target: Path) -> list[str]:
    """The command that fetches an object as a person would, with a signature."""
    return [
        "curl",
        "--silent",
        "--fail",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "--user",
        f"{ADMIN.access_key}:{ADMIN.secret_key}",
        "--output",
        str(target),
        f"{store.endpoint}/{BUCKET}/{key}",
    ]


class CountingStore:
    """Answers as S3 does for a pointer that does not change, and counts."""

    def __init__(self, text: bytes, bundle: Path) -> None:
        self._text = text
        self._bundle = bundle
        self._lock = threading.Lock()
        self.requests = 0

    def __call__(self, request: Request) -> bytes:
        """Answer, and count it."""
        with self._lock:
            self.requests += 1
        if request.target.endswith(".json"):
            return file_answer(request, self._text)
        if request.target.endswith(".zip"):
            return file_answer(request, self._bundle.read_bytes())
        return answer(404)


@contextmanager
def counting(bundle: Path) -> Iterator[tuple[CountingStore, str]]:
    """A store that counts its requests, and its URL."""
    store = CountingStore(pointer_of(bundle), bundle)
    before = dict(os.environ)
    os.environ.update(objectstore.environment_of(ADMIN))
    try:
        with web_server(store) as server:
            yield store, server.url
    finally:
        os.environ.clear()
        os.environ.update(before)


def count(store: CountingStore, seconds: float) -> float:
    """Requests in an hour, as far as this long tells."""
    before, begun = store.requests, time.monotonic()
    time.sleep(seconds)
    return (store.requests - before) * 3600 / (time.monotonic() - begun)
