"""Signed requests to one S3 bucket: right region, fresh credentials, errors that say what to do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.model.errors import AgentError
from agent.model.transfer import Patience, S3Place
from agent.remote import web
from agent.remote.s3_address import S3Address
from agent.remote.s3_errors import Asked, Fault, error_of, parse_fault
from agent.remote.web import Call, Slice, Stream, Web

if TYPE_CHECKING:
    from agent.remote.aws import Aws

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_ERROR_BYTES = 64 * 1024
_ANSWERS = frozenset({304, 412, 416})  # to what was asked, like a success


@dataclass(frozen=True, slots=True)
class S3Request:
    """What to ask. name: the object's whole key, "" for the bucket. action: what IAM calls it.

    doing: "read s3://bucket/key". sha256: of the body.
    """

    doing: str
    action: str
    name: str
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice | None = None
    sha256: str = EMPTY_SHA256

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method in ("GET", "HEAD")


class S3Requests:
    """Sends them, one attempt each: whoever calls knows what is worth another one."""

    def __init__(
        self,
        place: S3Place,
        address: S3Address,
        patience: Patience,
        warn: Callable[[str], None],
    ) -> None:
        self._place = place
        self._address = address
        self._web = Web(patience)
        self._warn = warn
        self._region = ""
        self._aws: Aws | None = None
        self._loading = asyncio.Lock()

    async def open(self, request: S3Request) -> Stream:
        """The answer to it: a success, a 304, 412 or 416. Raises AgentError for any other.

        Goes once to the region that S3 names, for reading, and once with credentials read anew.
        """
        url = ""
        followed = renewed = False
        while True:
            aws = await self._load()
            stream = await self._web.open(await self._signed(aws, request, url))
            if stream.status < 300 or stream.status in _ANSWERS:
                return stream
            fault, location = await _read_fault(stream)
            if request.is_read and not followed and fault.is_elsewhere(self._region):
                self._move(fault)
                url, followed = "", True
            elif request.is_read and not followed and fault.status == 307:
                followed, url = True, self._checked(location, fault, request)
            elif fault.may_be_stale and not renewed and await aws.read_anew():
                renewed = True
            else:
                raise error_of(fault, self._asked(request))

    async def close(self) -> None:
        """Close the connections."""
        await self._web.close()

    def fault_in(self, body: bytes, request: S3Request) -> AgentError:
        """The error that came in the body of a success."""
        return error_of(parse_fault(200, {}, body), self._asked(request))

    async def _load(self) -> Aws:
        async with self._loading:
            if self._aws is None:
                kind = await asyncio.to_thread(_import_aws)
                place = self._place
                aws = kind(profile=place.profile, role_arn=place.role_arn, region=place.region)
                self._region = place.region or await aws.default_region()
                self._aws = aws
            return self._aws

    async def _signed(self, aws: Aws, request: S3Request, url: str) -> Call:
        where = url or self._address.request_url(self._region, request.name, request.query)
        call = Call(where, request.doing, request.method, request.headers, request.body)
        return await aws.sign(call, region=self._region, body_sha256=request.sha256)

    def _move(self, fault: Fault) -> None:
        """From now on to the bucket's own region."""
        self._warn(
            f"the bucket {self._address.bucket} lies in {fault.region}, not in {self._region}:"
            f" set region: {fault.region} beside its url, which saves a request each time"
        )
        self._region = fault.region

    def _checked(self, location: str, fault: Fault, request: S3Request) -> str:
        """Where a new bucket is served until its name has spread: a host of the same store."""
        here = self._address.request_url(self._region, request.name, request.query)
        own, other = web.split(here), web.split(location)
        is_aws = not self._address.endpoint and (other.hostname or "").endswith(
            (".amazonaws.com", ".amazonaws.com.cn")
        )
        if own.scheme != other.scheme or not (is_aws or own.hostname == other.hostname):
            raise error_of(fault, self._asked(request))
        return location

    def _asked(self, request: S3Request) -> Asked:
        role = self._place.role_arn.split(":")
        return Asked(
            request.doing,
            request.action,
            self._address.bucket,
            request.name,
            self._region,
            account=role[4] if len(role) > 4 else "",
        )


def _import_aws() -> type[Aws]:
    from agent.remote.aws import Aws

    return Aws


async def _read_fault(stream: Stream) -> tuple[Fault, str]:
    async with stream:
        body = await stream.read(_ERROR_BYTES)
        fault = parse_fault(stream.status, stream.headers, body)
        return fault, stream.headers.get("Location", "")
