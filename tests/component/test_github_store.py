"""A GitHub release as a store, by the shape of GitHub's REST API as it is documented."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError, NotFound, TransientError
from agent.remote import stores
from agent.remote.github_store import is_release_url
from agent.remote.stores import Store
from tests.transfers import HASTY, fetch
from tests.web_server import Request, WebServer, answer, file_answer, web_server

TOKEN = "ghp_hunter2"
BUNDLE = bytes(range(256)) * 8000


class Github:
    """The API, and the storage behind it that must not see a token."""

    def __init__(self, storage: WebServer) -> None:
        self.assets: dict[str, tuple[int, bytes]] = {}
        self.storage = storage
        self.server: WebServer | None = None
        storage.answering = self.serve_storage

    def __call__(self, request: Request) -> bytes:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return answer(404)  # as for a private repository
        if request.target == "/repos/acme/service/releases/latest":
            assert request.headers["accept"] == "application/vnd.github+json"
            return file_answer(request, json.dumps(self.release()).encode())
        assert request.headers["accept"] == "application/octet-stream"
        number = request.target.removeprefix("/repos/acme/service/releases/assets/")
        return answer(302, location=f"{self.storage.url}/{number}?signed=1")

    def release(self) -> dict[str, object]:
        assert self.server is not None
        base = f"{self.server.url}/repos/acme/service/releases/assets"
        assets = [
            {"id": number, "name": name, "url": f"{base}/{number}", "state": "uploaded"}
            for name, (number, _) in self.assets.items()
        ]
        return {"tag_name": "v1.214", "assets": assets}

    def serve_storage(self, request: Request) -> bytes:
        number = int(request.target.removeprefix("/").partition("?")[0])
        return file_answer(request, dict(self.assets.values())[number])


@pytest.fixture
def github() -> Iterator[Github]:
    with web_server(lambda _: b"") as storage:
        github = Github(storage)
        github.assets = {"release.json": (1, b"{}"), "bundle.zip": (2, BUNDLE)}
        with web_server(github) as server:
            github.server = server
            yield github


@pytest.fixture
async def store(github: Github) -> AsyncIterator[Store]:
    assert github.server is not None
    url = f"{github.server.url}/repos/acme/service/releases/latest"
    store = stores.open_http(url, token=TOKEN, patience=HASTY)
    yield store
    await store.close()


async def test_an_asset_by_its_name(github: Github, store: Store) -> None:
    assert (await store.read("service/default/release.json")).body == b"{}"
    assert "authorization" not in github.storage.requests[0].headers


async def test_an_unchanged_asset_is_not_fetched(github: Github, store: Store) -> None:
    first = await store.read("release.json")
    assert (await store.read("release.json", etag=first.etag)).body is None
    assert len(github.storage.requests) == 1
    assert github.server is not None
    assert "if-none-match" in github.server.requests[-1].headers
    github.assets["release.json"] = (3, b"new")
    assert (await store.read("release.json", etag=first.etag)).body == b"new"


async def test_a_download_goes_on(github: Github, store: Store, state_dir: Path) -> None:
    cuts = iter([1000])

    def answering(request: Request) -> bytes:
        whole, at = github.serve_storage(request), next(cuts, 0)
        return whole[:-at] if at else whole

    github.storage.answering = answering
    fetched = await fetch(store, "bundles/bundle.zip", state_dir / "b", size=len(BUNDLE))
    assert fetched.sha256 == hashlib.sha256(BUNDLE).hexdigest()
    starts = [each.start for each in github.storage.requests]
    assert starts[0] == 0 < starts[1]


async def test_no_such_asset(store: Store) -> None:
    with pytest.raises(NotFound, match=r"the release v1\.214 has no such asset"):
        await store.read("other.json")


async def test_without_a_token(github: Github) -> None:
    assert github.server is not None
    url = f"{github.server.url}/repos/acme/service/releases/latest"
    store = stores.open_http(url, patience=HASTY)
    with pytest.raises(NotFound, match="or only with a token"):
        await store.read("release.json")
    await store.close()


async def test_the_request_limit(github: Github, store: Store) -> None:
    assert github.server is not None
    reset = int(time.time()) + 1000
    github.server.answering = lambda _: answer(
        403, x_ratelimit_remaining="0", x_ratelimit_reset=str(reset)
    )
    with pytest.raises(TransientError, match="GitHub's request limit is used up") as caught:
        await store.read("release.json")
    assert 990 < caught.value.retry_after <= 1001
    assert len(github.server.requests) == 1


async def test_an_asset_elsewhere_does_not_get_the_token(github: Github, store: Store) -> None:
    assert github.server is not None
    stolen = {"id": 1, "name": "release.json", "state": "uploaded", "url": github.storage.url}
    body = json.dumps({"tag_name": "v1", "assets": [stolen]}).encode()
    github.server.answering = lambda request: file_answer(request, body)
    with pytest.raises(AgentError, match="the asset's URL is on another host"):
        await store.read("release.json")
    assert github.storage.requests == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"assets": [{"name": "x"}]}'])
async def test_answers_that_are_none(github: Github, store: Store, body: bytes) -> None:
    assert github.server is not None
    github.server.answering = lambda _: answer(200, body)
    with pytest.raises(AgentError, match="GitHub's answer"):
        await store.read("release.json")


@pytest.mark.parametrize(
    ("url", "is_release"),
    [
        ("https://api.github.com/repos/o/r/releases/latest", True),
        ("https://api.github.com/repos/o/r/releases/tags/v1.2", True),
        ("https://github.example/api/v3/repos/o/r/releases/latest/", True),
        ("https://x.example/repos/o/r/releases", False),
        ("https://x.example/deploy", False),
    ],
)
def test_release_urls(url: str, *, is_release: bool) -> None:
    assert is_release_url(url) is is_release
