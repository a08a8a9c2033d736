"""A web server as a store: read only, with a token where one is set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urljoin

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.model.transfer import Answer, Fetched, Patience
from agent.remote import web
from agent.remote.attempts import briefly, try_again
from agent.remote.download import Progress, Wanted, download
from agent.remote.web import Call, Stream, Web
from agent.system.cancel import Cancel

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_RETRIED = frozenset({408, 425, 429})


class HttpStore:
    """Keys are paths below base_url. token: sent as a bearer's, to that origin only."""

    def __init__(self, base_url: str, *, token: str, patience: Patience) -> None:
        self._base = checked_base(base_url, token)
        self._token = token
        self._patience = patience
        self._web = Web(patience)

    def url_of(self, key: str) -> str:
        """Where it lies; raises AgentError for a key that leads out of the store."""
        return f"{self._base}/{quote(checked_key(key), safe='/~')}"

    async def read(self, key: str, *, etag: str = "", limit_bytes: int = 2**20) -> Answer:
        """A small object, or that it still is the one that `etag` names; raises AgentError."""
        headers = {"If-None-Match": etag} if etag else {}
        doing = f"read {self.url_of(key)}"

        async def attempt() -> Answer:
            async with await self._open(Call(self.url_of(key), doing, headers=headers)) as stream:
                if stream.status == 304:
                    return Answer(None, etag)
                if stream.status != 200:
                    raise refusal(stream, with_token=bool(self._token))
                return Answer(await stream.read(limit_bytes), stream.headers.get("ETag", ""))

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
        """An object to the disk, see stores.Store; a web server knows no version_id."""
        url = self.url_of(key)

        async def open_at(start: int, validator: str) -> Stream:
            stream = await self._open(Call(url, f"fetch {url}", headers=range_of(start, validator)))
            return await checked(stream, with_token=bool(self._token))

        wanted = Wanted(url, target, size, limit_bytes)
        return await download(open_at, wanted, self._patience, cancel=cancel, progress=progress)

    async def close(self) -> None:
        """Close its connections."""
        await self._web.close()

    async def _open(self, call: Call) -> Stream:
        token = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return await follow(self._web, dataclasses.replace(call, headers={**call.headers, **token}))


async def follow(client: Web, call: Call) -> Stream:
    """The answer after at most five redirects; no other origin is sent the Authorization."""
    for _ in range(_MOST_REDIRECTS + 1):
        stream = await client.open(call)
        location = stream.headers.get("Location", "")
        if stream.status not in _REDIRECTS or not location:
            return stream
        async with stream:
            call = _redirected(call, location)
    raise AgentError(
        f"cannot {call.doing}: it was redirected more than {_MOST_REDIRECTS} times",
        code=Code.SOURCE_UNAVAILABLE,
        remedy="Set the URL to where the last redirect leads",
    )


def _redirected(call: Call, location: str) -> Call:
    before = web.origin_of(call.url)
    try:
        url = urljoin(call.url, location)
        after = web.origin_of(url)
    except ValueError:
        url, after = "", ("", "", 0)
    if after[0] not in ("http", "https") or (before[0] == "https" and after[0] == "http"):
        raise AgentError(
            f"cannot {call.doing}: it is redirected from {before[0]} to {after[0] or 'nowhere'}",
            code=Code.SOURCE_UNAVAILABLE,
            remedy="Set an https URL that is not redirected to an unprotected one",
        )
    headers = dict(call.headers)
    if before != after:
        headers.pop("Authorization", None)
    return dataclasses.replace(call, url=url, headers=headers)


def range_of(start: int, validator: str) -> Mapping[str, str]:
    """Headers that ask for what follows `start`, or for all of it where it is another one now."""
    return {"Range": f"bytes={start}-", "If-Range": validator} if start else {}


async def checked(stream: Stream, *, with_token: bool) -> Stream:
    """The stream, if download.Opener may give it back; else it is closed, raises AgentError."""
    if stream.status in (200, 206, 412, 416):
        return stream
    async with stream:
        raise refusal(stream, with_token=with_token)


def refusal(stream: Stream, *, with_token: bool) -> AgentError:
    """What a status means that is no success."""
    status, doing = stream.status, stream.doing
    if status in (401, 403):
        known = "the token was refused" if with_token else "no token is set for it"
        return AgentError(
            f"cannot {doing}: access denied (HTTP {status}), {known}",
            code=Code.SOURCE_DENIED,
            remedy="Put a token that may read it into the source's token_file",
        )
    if status in (404, 410):
        return NotFound(
            f"cannot {doing}: it is not there (HTTP {status})",
            code=Code.NOT_FOUND,
            remedy="Check the source's url, application and deployment_group",
        )
    if status in _RETRIED or status >= 500:
        return TransientError(
            f"cannot {doing}: the server cannot answer now (HTTP {status})",
            code=Code.SOURCE_UNAVAILABLE,
            retry_after=web.retry_after(stream.headers),
        )
    return AgentError(f"cannot {doing}: HTTP {status}", code=Code.SOURCE_UNAVAILABLE)


def checked_key(key: str) -> str:
    """A key that stays below its store; raises AgentError."""
    if not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise AgentError(
            f"cannot use {key!r} as a key: it leads out of the store",
            code=Code.BAD_REQUEST,
        )
    return key


def checked_base(url: str, token: str) -> str:
    """The URL without a slash at its end; raises AgentError where it cannot be a store's."""
    parts = web.split(url)
    problem = remedy = ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = f"{url!r} is not an http:// or https:// URL"
    elif "@" in parts.netloc or parts.query or parts.fragment:
        problem = f"the URL of {parts.hostname} has a password or a query in it"
        remedy = "Put a token into the source's token_file instead"
    elif token and parts.scheme == "http" and not web.is_loopback(parts.hostname):
        problem = f"the token for {parts.hostname} would be sent without TLS"
        remedy = "Use an https:// URL"
    elif token and not token.isprintable():
        problem, remedy = "the token is not one line of plain text", "Check the token_file"
    if problem:
        raise AgentError(
            f"cannot use this source: {problem}", code=Code.CONFIG_INVALID, remedy=remedy
        )
    return url.rstrip("/")
