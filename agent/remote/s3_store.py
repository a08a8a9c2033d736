"""An S3 bucket, or a prefix in one, as a store."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from agent.model.errors import AgentError, Code, Conflict, NotFound
from agent.model.transfer import Answer, Fetched, ObjectInfo, Patience, S3Place
from agent.remote import s3_errors, s3_upload
from agent.remote.attempts import briefly, try_again
from agent.remote.download import Progress, Wanted, download
from agent.remote.s3_address import parse_place
from agent.remote.s3_requests import S3Request, S3Requests
from agent.remote.web import Stream
from agent.system.cancel import Cancel

_Page = tuple[list[ObjectInfo], str]  # with the token of the next one, "" for none

_PAGE_BYTES = 8 * 2**20  # a thousand keys of a kilobyte each, with what surrounds them


class S3Store:
    """See stores.WritableStore. Versions of objects are named by S3's version ids."""

    def __init__(self, place: S3Place, *, patience: Patience, warn: Callable[[str], None]) -> None:
        self._address = parse_place(place)
        self._patience = patience
        self._requests = S3Requests(place, self._address, patience, warn)

    def url_of(self, key: str) -> str:
        """s3://bucket/prefix/key."""
        return f"s3://{self._address.bucket}/{self._address.name_of(key)}"

    async def read(self, key: str, *, etag: str = "", limit_bytes: int = 2**20) -> Answer:
        """A small object, or that it still is the one that `etag` names; raises AgentError."""
        headers = {"If-None-Match": etag} if etag else {}
        request = self._request("read", key, "s3:GetObject", headers=headers)

        async def attempt() -> Answer:
            async with await self._requests.open(request) as stream:
                if stream.status == 304:
                    return Answer(None, etag)
                body = await stream.read(limit_bytes)
                return Answer(body, stream.headers.get("ETag", ""), _version_of(stream.headers))

        return await try_again(briefly(self._patience), attempt)

    async def download(
        self,
        key: str,
        target: Path,
        *,
        version_id: str = "",
        size: int = 0,
        limit_bytes: int,
        cancel: Cancel,
        progress: Progress,
    ) -> Fetched:
        """An object, or a version of it, to the disk: see stores.Store."""
        action = "s3:GetObjectVersion" if version_id else "s3:GetObject"
        query = {"versionId": version_id} if version_id else {}

        async def open_at(start: int, validator: str) -> Stream:
            headers = _range_of(start, validator)
            request = self._request("fetch", key, action, query=query, headers=headers)
            return await self._requests.open(request)

        name = f"{self.url_of(key)}?{version_id}"
        wanted = Wanted(name, target, size, limit_bytes)
        return await download(open_at, wanted, self._patience, cancel=cancel, progress=progress)

    async def head(self, key: str) -> ObjectInfo | None:
        """What is under a key, None where nothing is; raises AgentError."""
        request = self._request("look at", key, "s3:GetObject", method="HEAD")

        async def attempt() -> ObjectInfo:
            async with await self._requests.open(request) as stream:
                return _info_of(key, stream.headers, int(stream.headers.get("Content-Length", "0")))

        try:
            return await try_again(self._patience, attempt)
        except NotFound:
            return None

    async def write(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        replaces: str | None = None,
    ) -> ObjectInfo:
        """A small object, as a whole: see stores.WritableStore; raises AgentError."""
        sha256 = hashlib.sha256(body).hexdigest()
        headers = {"Content-Type": content_type, "x-amz-meta-sha256": sha256}
        if replaces is not None:
            headers |= {"If-Match": replaces} if replaces else {"If-None-Match": "*"}
        request = S3Request(
            f"write {self.url_of(key)}",
            "s3:PutObject",
            self._address.name_of(key),
            method="PUT",
            headers=headers,
            body=body,
            sha256=sha256,
        )

        async def attempt() -> ObjectInfo:
            async with await self._requests.open(request) as stream:
                if stream.status == 412:
                    raise Conflict(
                        f"cannot {request.doing}: somebody else changed it meanwhile",
                        code=Code.CONFLICT,
                        remedy="Look at what is there now, then run this again",
                    )
                return _info_of(key, stream.headers, len(body))

        return await try_again(self._patience, attempt)

    async def upload(
        self, key: str, source: Path, *, sha256: str, progress: Progress
    ) -> ObjectInfo:
        """A file, from the disk in constant memory; raises AgentError."""
        upload = s3_upload.Upload(
            self._requests,
            self._patience,
            name=self._address.name_of(key),
            doing=f"upload {self.url_of(key)}",
            source=source,
            sha256=sha256,
            progress=progress,
        )
        headers, size = await upload.run()
        return _info_of(key, headers, size)

    async def list(self, prefix: str, *, limit: int = 1000) -> list[ObjectInfo]:
        """What is under a prefix ("" for all), by key; raises AgentError."""
        found: list[ObjectInfo] = []
        token = ""
        while len(found) < limit:
            page, token = await self._list_page(prefix, limit - len(found), token)
            found += page
            if not token:
                break
        return found

    async def close(self) -> None:
        """Close its connections."""
        await self._requests.close()

    async def _list_page(self, prefix: str, limit: int, token: str) -> _Page:
        base = self._address.prefix
        query = {
            "list-type": "2",
            "max-keys": str(min(1000, limit)),
            "prefix": f"{base}/{prefix}" if base else prefix,
        }
        if token:
            query["continuation-token"] = token
        doing = f"list {self._address}/{prefix}"
        request = S3Request(doing, "s3:ListBucket", "", query=query)

        async def attempt() -> bytes:
            async with await self._requests.open(request) as stream:
                return await stream.read(_PAGE_BYTES)

        root = s3_errors.parse_xml(await try_again(self._patience, attempt))
        try:
            if root is None or root.tag != "ListBucketResult":
                raise ValueError
            page = [self._listed(each) for each in root.iter("Contents")]
        except ValueError as error:
            raise AgentError(
                f"cannot {doing}: the answer is not S3's", code=Code.SOURCE_UNAVAILABLE
            ) from error
        return page, root.findtext("NextContinuationToken", "")

    def _listed(self, entry: ET.Element) -> ObjectInfo:
        modified = 0.0
        with contextlib.suppress(ValueError):
            modified = datetime.fromisoformat(entry.findtext("LastModified", "")).timestamp()
        return ObjectInfo(
            key=self._address.key_of(entry.findtext("Key", "")),
            size=int(entry.findtext("Size", "0")),
            etag=entry.findtext("ETag", ""),
            modified=modified,
        )

    def _request(
        self,
        verb: str,
        key: str,
        action: str,
        *,
        method: str = "GET",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> S3Request:
        name = self._address.name_of(key)
        doing = f"{verb} {self.url_of(key)}"
        return S3Request(doing, action, name, method, query or {}, headers or {})


def _range_of(start: int, validator: str) -> dict[str, str]:
    """S3 documents If-Match, and not If-Range."""
    if not start:
        return {}
    by_date = not validator.startswith('"')
    condition = "If-Unmodified-Since" if by_date else "If-Match"
    return {"Range": f"bytes={start}-", condition: validator}


def _version_of(headers: Mapping[str, str]) -> str:
    version_id = headers.get("x-amz-version-id", "")
    return "" if version_id == "null" else version_id  # of a bucket without versions


def _info_of(key: str, headers: Mapping[str, str], size: int) -> ObjectInfo:
    modified = 0.0
    with contextlib.suppress(ValueError):
        modified = parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()
    return ObjectInfo(key, size, headers.get("ETag", ""), _version_of(headers), modified)
