"""The assets of a GitHub release as a store, by GitHub's REST API.

https://docs.github.com/en/rest/releases: an asset is named in the release's JSON, and its bytes are
at the asset's own URL, asked for as application/octet-stream, behind a redirect.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.model.transfer import Answer, Fetched, Patience
from agent.remote import web
from agent.remote.attempts import briefly, try_again
from agent.remote.download import Progress, Wanted, download
from agent.remote.http_store import checked, checked_base, checked_key, follow, range_of, refusal
from agent.remote.web import Call, Stream, Web
from agent.system.cancel import Cancel

_RELEASE_PATH = re.compile(r"(?:/api/v3)?/repos/[^/]+/[^/]+/releases/(?:latest|tags/[^/]+|\d+)/?")
_RELEASE_BYTES = 8 * 2**20  # with up to 1000 assets


def is_release_url(url: str) -> bool:
    """Whether it names a release in GitHub's API."""
    return _RELEASE_PATH.fullmatch(web.split(url).path) is not None


class GithubStore:
    """A key's last part is the name of an asset: they have no folders."""

    def __init__(self, base_url: str, *, token: str, patience: Patience) -> None:
        self._base = checked_base(base_url, token)
        self._token = token
        self._patience = patience
        self._web = Web(patience)
        self._release: dict[str, Any] = {"assets": []}
        self._release_etag = ""

    def url_of(self, key: str) -> str:
        """The release, and the asset's name behind it."""
        return f"{self._base}#{_name_of(key)}"

    async def read(self, key: str, *, etag: str = "", limit_bytes: int = 2**20) -> Answer:
        """A small asset; `etag` names the asset's upload, and an unchanged one is not fetched."""

        async def attempt() -> Answer:
            asset = await self._find(key, f"read {self.url_of(key)}")
            found = f"{asset['id']}-{asset.get('updated_at', '')}"
            if found == etag:
                return Answer(None, etag)
            async with await self._open(asset["url"], f"read {self.url_of(key)}", {}) as stream:
                return Answer(await stream.read(limit_bytes), found)

        return await try_again(briefly(self._patience), attempt)

    async def download(
        self,
        key: str,
        target: Path,
        *,
        version_id: str = "",  # noqa: ARG002
        size: int = 0,
        limit_bytes: int,
        cancel: Cancel,
        progress: Progress,
    ) -> Fetched:
        """An asset to the disk, see stores.Store; GitHub knows no version_id."""
        doing = f"fetch {self.url_of(key)}"

        async def open_at(start: int, validator: str) -> Stream:
            asset = await self._find(key, doing)
            return await self._open(asset["url"], doing, range_of(start, validator))

        wanted = Wanted(self.url_of(key), target, size, limit_bytes)
        return await download(open_at, wanted, self._patience, cancel=cancel, progress=progress)

    async def close(self) -> None:
        """Close its connections."""
        await self._web.close()

    @property
    def _has_token(self) -> bool:
        return bool(self._token)

    async def _find(self, key: str, doing: str) -> Mapping[str, Any]:
        """The asset's description, from the release's as it is now; raises AgentError."""
        await self._load_release(doing)
        for asset in self._release["assets"]:
            if asset.get("name") == _name_of(key) and asset.get("state") == "uploaded":
                if web.origin_of(asset["url"]) != web.origin_of(self._base):
                    raise _unusable(doing, "the asset's URL is on another host")
                found: Mapping[str, Any] = asset
                return found
        raise NotFound(
            f"cannot {doing}: the release {self._release.get('tag_name', '')} has no such asset",
            code=Code.NOT_FOUND,
            remedy=f"Upload it to the release under the name {_name_of(key)}",
        )

    async def _load_release(self, doing: str) -> None:
        """Anew where it changed: an unchanged one (304) is not counted in GitHub's limit."""
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        if self._release_etag:
            headers["If-None-Match"] = self._release_etag
        async with await self._send(self._base, doing, headers) as stream:
            if stream.status == 304:
                return
            if stream.status == 404 and not self._has_token:
                raise NotFound(
                    f"cannot {doing}: GitHub knows no such release, or only with a token",
                    code=Code.NOT_FOUND,
                    remedy="Check the url, and for a private repository set token_file",
                )
            if stream.status != 200:
                raise refusal(stream, with_token=self._has_token)
            try:
                release = json.loads(await stream.read(_RELEASE_BYTES))
            except (ValueError, RecursionError) as error:
                raise _unusable(doing, "GitHub's answer is not JSON") from error
            if not _is_release(release):
                raise _unusable(doing, "GitHub's answer describes no release")
            self._release, self._release_etag = release, stream.headers.get("ETag", "")

    async def _open(self, url: str, doing: str, headers: Mapping[str, str]) -> Stream:
        headers = {"Accept": "application/octet-stream", **headers}
        return await checked(await self._send(url, doing, headers), with_token=self._has_token)

    async def _send(self, url: str, doing: str, headers: dict[str, str]) -> Stream:
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        stream = await follow(self._web, Call(url, doing, headers=headers))
        if stream.status in (403, 429) and stream.headers.get("X-RateLimit-Remaining") == "0":
            async with stream:
                raise _too_many(stream, with_token=self._has_token)
        return stream


def _is_release(value: object) -> bool:
    assets = value.get("assets") if isinstance(value, dict) else None
    return isinstance(assets, list) and all(
        isinstance(each, dict) and "id" in each and web.split(str(each.get("url"))).netloc
        for each in assets
    )


def _name_of(key: str) -> str:
    return checked_key(key).rpartition("/")[2]


def _unusable(doing: str, cause: str) -> AgentError:
    return AgentError(f"cannot {doing}: {cause}", code=Code.SOURCE_UNAVAILABLE)


def _too_many(stream: Stream, *, with_token: bool) -> TransientError:
    reset = stream.headers.get("X-RateLimit-Reset", "")
    wait = max(1.0, float(reset) - time.time()) if reset.isdecimal() else 60.0
    remedy = "Set a longer poll_interval" if with_token else "Set a token_file: 60 requests an hour"
    return TransientError(
        f"cannot {stream.doing}: GitHub's request limit is used up for another {wait:.0f} s",
        code=Code.SOURCE_UNAVAILABLE,
        remedy=remedy,
        retry_after=max(wait, web.retry_after(stream.headers)),
    )
