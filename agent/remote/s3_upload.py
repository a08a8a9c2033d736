"""A file to S3: in one request, or in parts beside each other where it is large.

What is sent is signed with its digest, so that S3 itself refuses what arrives as something else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from agent.model.errors import AgentError, Code, from_os_error
from agent.model.transfer import Patience
from agent.remote.attempts import try_again
from agent.remote.download import Progress
from agent.remote.s3_errors import parse_xml
from agent.remote.s3_requests import S3Request, S3Requests
from agent.remote.web import Slice

PART_BYTES = 64 * 2**20
ONE_REQUEST_BYTES = 100 * 2**20
_AT_ONCE = 4
_MOST_PARTS = 10_000
_BLOCK_BYTES = 2**20
_XML_BYTES = 64 * 1024
_ABORT_SECONDS = 30.0
_ANSWER_SECONDS = 600.0  # S3 puts parts together for minutes, with spaces to keep the connection


class Upload:
    """One file under one name. source is read twice: for the digests, and to send it."""

    def __init__(
        self,
        requests: S3Requests,
        patience: Patience,
        *,
        name: str,
        doing: str,
        source: Path,
        sha256: str,
        progress: Progress,
    ) -> None:
        self._requests = requests
        self._patience = patience
        self._name = name
        self._doing = doing
        self._source = source
        self._sha256 = sha256
        self._progress = progress
        self._size = 0
        self._sent: dict[int, int] = {}  # where a part begins: how much of it

    async def run(self) -> tuple[Mapping[str, str], int]:
        """Headers of S3's last answer, and the file's size; raises AgentError."""
        try:
            self._size = (await asyncio.to_thread(self._source.stat)).st_size
            if self._size <= ONE_REQUEST_BYTES:
                return await self._at_once(), self._size
            return await self._in_parts(), self._size
        except OSError as error:
            raise from_os_error(error, f"read {self._source}", code=Code.BUNDLE_MISSING) from error

    async def _at_once(self) -> Mapping[str, str]:
        whole = self._slice(0, self._size)
        self._check_digest(await asyncio.to_thread(_digest, whole, hashlib.sha256()))
        checksum = base64.b64encode(bytes.fromhex(self._sha256)).decode()
        request = self._request("PUT", headers={**self._meta(), "x-amz-checksum-sha256": checksum})
        request = dataclasses.replace(request, body=whole, sha256=self._sha256)
        headers, _ = await self._send(request)
        return headers

    async def _in_parts(self) -> Mapping[str, str]:
        _, body = await self._send(
            self._request("POST", query={"uploads": ""}, headers=self._meta())
        )
        root = parse_xml(body)
        upload_id = "" if root is None else root.findtext("UploadId", "")
        if not upload_id:
            raise AgentError(
                f"cannot {self._doing}: S3 gave no upload id", code=Code.SOURCE_UNAVAILABLE
            )
        try:
            etags = await self._send_parts(upload_id)
            return await self._complete(upload_id, etags)
        except BaseException:
            await self._abort(upload_id)
            raise

    async def _send_parts(self, upload_id: str) -> list[str]:
        """The ETag of each part. The digests are made in order, of each part and of the whole."""
        size = max(PART_BYTES, -(-self._size // _MOST_PARTS))
        starts = range(0, self._size, size)
        whole = hashlib.sha256()
        places = asyncio.Semaphore(_AT_ONCE)
        sending: list[asyncio.Task[str]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for number, start in enumerate(starts, start=1):
                    await places.acquire()
                    part = self._slice(start, min(size, self._size - start))
                    digest = await asyncio.to_thread(_digest, part, whole)
                    sending.append(
                        group.create_task(self._send_part(upload_id, number, part, digest, places))
                    )
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        self._check_digest(whole.hexdigest())
        return [each.result() for each in sending]

    async def _send_part(
        self, upload_id: str, number: int, part: Slice, digest: str, places: asyncio.Semaphore
    ) -> str:
        query = {"partNumber": str(number), "uploadId": upload_id}
        request = dataclasses.replace(self._request("PUT", query=query), body=part, sha256=digest)
        try:
            headers, _ = await self._send(request)
        finally:
            places.release()
        return headers.get("ETag", "")

    async def _complete(self, upload_id: str, etags: list[str]) -> Mapping[str, str]:
        root = ET.Element("CompleteMultipartUpload")
        for number, etag in enumerate(etags, start=1):
            part = ET.SubElement(root, "Part")
            ET.SubElement(part, "PartNumber").text = str(number)
            ET.SubElement(part, "ETag").text = etag
        body = ET.tostring(root)
        request = dataclasses.replace(
            self._request("POST", query={"uploadId": upload_id}),
            body=body,
            sha256=hashlib.sha256(body).hexdigest(),
        )
        try:
            headers, answer = await self._send(request)
            found = parse_xml(answer)
            if found is None or found.tag == "Error":  # S3 says 200 before it knows
                raise self._requests.fault_in(answer, request)
        except AgentError:
            # the first attempt may have succeeded, and only its answer was lost
            there = await self._look()
            if there is None:
                raise
            return there
        return {**headers, "ETag": found.findtext("ETag", "")}

    async def _look(self) -> Mapping[str, str] | None:
        """Headers of what is there, None where it is not this file."""
        with contextlib.suppress(AgentError):
            headers, _ = await self._send(self._request("HEAD"))
            if headers.get("x-amz-meta-sha256") == self._sha256:
                return headers
        return None

    async def _abort(self, upload_id: str) -> None:
        """Have the parts removed, which are paid for."""
        request = self._request("DELETE", query={"uploadId": upload_id})
        request = dataclasses.replace(request, action="s3:AbortMultipartUpload")
        with contextlib.suppress(AgentError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._send(request)

    def _slice(self, start: int, length: int) -> Slice:
        def sent(done: int) -> None:
            self._sent[start] = done
            self._progress(sum(self._sent.values()), self._size)

        return Slice(self._source, start, length, sent)

    async def _send(self, request: S3Request) -> tuple[Mapping[str, str], bytes]:
        async def attempt() -> tuple[Mapping[str, str], bytes]:
            async with await self._requests.open(request) as stream:
                return stream.headers, await stream.read(_XML_BYTES, seconds=_ANSWER_SECONDS)

        return await try_again(self._patience, attempt)

    def _request(
        self,
        method: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> S3Request:
        return S3Request(
            self._doing, "s3:PutObject", self._name, method, query or {}, headers or {}
        )

    def _meta(self) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", "x-amz-meta-sha256": self._sha256}

    def _check_digest(self, found: str) -> None:
        if found != self._sha256:
            raise AgentError(
                f"cannot {self._doing}: {self._source} has the digest {found[:12]},"
                f" and {self._sha256[:12]} was to be published",
                code=Code.BUNDLE_CHANGED,
                remedy="Publish it again, and let nothing write to the bundle meanwhile",
            )


def _blocks(part: Slice) -> Iterator[bytes]:
    with part.path.open("rb", buffering=0) as file:
        file.seek(part.start)
        left = part.length
        while left and (block := file.read(min(_BLOCK_BYTES, left))):
            left -= len(block)
            yield block


def _digest(part: Slice, whole: hashlib._Hash) -> str:
    """The part's digest; its bytes go into `whole` as well."""
    own = hashlib.sha256()
    for block in _blocks(part):
        own.update(block)
        whole.update(block)
    return own.hexdigest()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a group failed of, as if its work had been done one after the other."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
