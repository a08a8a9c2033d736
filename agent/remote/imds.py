"""What EC2 says of this host: the metadata service (IMDS), version 2.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.model.transfer import Patience
from agent.remote.attempts import try_again
from agent.remote.web import Call, Web

_IPV4, _IPV6 = "http://169.254.169.254", "http://[fd00:ec2::254]"
_CHANGE = "aws ec2 modify-instance-metadata-options --instance-id …"
_TOKEN_SECONDS = 60
_LIMIT_BYTES = 64 * 1024
_TAGS = "/latest/meta-data/tags/instance"
# it is on the same machine: it answers at once or not at all
_PATIENCE = Patience(attempts=2, first_pause=0.5, connect=1.0, stall=2.0, slow_seconds=2.0)


@dataclass(frozen=True, slots=True)
class Ec2Identity:
    """Who this host is in AWS. tag_value: of the tag that was asked for, "" where none was."""

    region: str
    account: str
    id: str
    tag_value: str = ""


async def read_identity(*, tag: str = "", allow_v1: bool = False) -> Ec2Identity:
    """Ask IMDS, without a proxy; takes a few seconds where nobody answers.

    allow_v1: goes on without a token where IMDS has none to give. NotFound where the tag is not
    there, or tags are not shown to the host; TransientError where IMDS does not answer.
    AWS_EC2_METADATA_SERVICE_ENDPOINT names another address, as in AWS's own programs.
    """
    client = Web(_PATIENCE, use_proxies=False)
    try:
        endpoint = _endpoint()

        async def attempt() -> Ec2Identity:
            token = await _fetch_token(client, endpoint, allow_v1=allow_v1)
            return await _read(_Imds(client, endpoint, token), tag)

        return await try_again(_PATIENCE, attempt)
    finally:
        await client.close()


@dataclass(frozen=True, slots=True)
class _Imds:
    client: Web
    endpoint: str
    token: Mapping[str, str]

    async def read(self, path: str) -> tuple[int, str]:
        """Status and text."""
        call = Call(f"{self.endpoint}{path}", f"read {self.endpoint}{path}", headers=self.token)
        async with await self.client.open(call) as stream:
            return stream.status, (await stream.read(_LIMIT_BYTES)).decode("utf-8", "replace")


async def _read(imds: _Imds, tag: str) -> Ec2Identity:
    path = "/latest/dynamic/instance-identity/document"
    status, text = await imds.read(path)
    try:
        document = json.loads(text) if status == 200 else {}
        identity = Ec2Identity(
            region=str(document["region"]),
            account=str(document["accountId"]),
            id=str(document["instanceId"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(f"{imds.endpoint}{path}", status) from error
    if not tag:
        return identity
    return dataclasses.replace(identity, tag_value=await _read_tag(imds, identity, tag))


async def _read_tag(imds: _Imds, identity: Ec2Identity, tag: str) -> str:
    path = f"{_TAGS}/{quote(tag, safe='')}"
    status, value = await imds.read(path)
    if status == 200:
        return value
    if status != 404:
        raise _unreadable(f"{imds.endpoint}{path}", status)
    status, names = await imds.read(f"{_TAGS}/")
    where = f"--region {identity.region}"
    if status == 200:
        raise NotFound(
            f"cannot read the tag {tag!r} of {identity.id}: it has no such tag",
            code=Code.NOT_FOUND,
            details=(f"its tags: {', '.join(names.split(chr(10)))}",),
            remedy=f"aws ec2 create-tags {where} --resources {identity.id}"
            f" --tags 'Key={tag},Value=…'",
        )
    raise NotFound(
        f"cannot read the tag {tag!r} of {identity.id}: EC2 does not show its tags to this host",
        code=Code.NOT_FOUND,
        remedy=f"aws ec2 modify-instance-metadata-options {where} --instance-id {identity.id}"
        " --instance-metadata-tags enabled",
    )


async def _fetch_token(client: Web, endpoint: str, *, allow_v1: bool) -> Mapping[str, str]:
    """The header that IMDSv2 wants; none for version 1."""
    call = Call(
        f"{endpoint}/latest/api/token",
        f"get a token from EC2's metadata service ({endpoint})",
        method="PUT",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)},
    )
    try:
        async with await client.open(call) as stream:
            status = stream.status
            token = (await stream.read(_LIMIT_BYTES)).decode("utf-8", "replace")
    except TransientError as error:
        if allow_v1 and await _answers(client, endpoint) in (200, 404):
            return {}
        raise await _no_token(client, endpoint, error) from error
    if status == 200:
        return {"X-aws-ec2-metadata-token": token}
    if status in (404, 405) and allow_v1:
        return {}
    if status == 403:
        raise AgentError(
            f"cannot {call.doing}: it is switched off for this host (HTTP 403)",
            code=Code.SOURCE_DENIED,
            remedy=f"{_CHANGE} --http-endpoint enabled",
        )
    raise _unreadable(call.url, status)


async def _no_token(client: Web, endpoint: str, error: TransientError) -> AgentError:
    """Why the token does not come: its answer dies on the way where the hop limit is too low."""
    if await _answers(client, endpoint):
        return TransientError(
            f"{error.message}; other requests are answered, so its hop limit is too low for this"
            " host, as in a container",
            code=Code.SOURCE_UNAVAILABLE,
            remedy=f"{_CHANGE} --http-put-response-hop-limit 2",
        )
    return TransientError(
        f"{error.message}; nothing else is answered there either",
        code=Code.SOURCE_UNAVAILABLE,
        remedy="Only EC2 has it. There, check that metadata is enabled, that no firewall is before"
        " 169.254.169.254, and in a container that the hop limit is 2",
    )


async def _answers(client: Web, endpoint: str) -> int:
    """The status of a request without a token (401 where version 1 is off); 0 for no answer."""
    try:
        async with await client.open(Call(f"{endpoint}/", "look")) as stream:
            return stream.status
    except TransientError:
        return 0


def _endpoint() -> str:
    own = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").rstrip("/")
    is_ipv6 = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
    return own or (_IPV6 if is_ipv6 else _IPV4)


def _unreadable(url: str, status: int) -> AgentError:
    kind = TransientError if status in (401, 429) or status >= 500 else AgentError
    return kind(f"cannot read {url}: HTTP {status}", code=Code.SOURCE_UNAVAILABLE)
