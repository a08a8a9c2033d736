"""Where the objects of an S3 bucket lie: from s3://bucket/prefix to the URL of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from agent.model.errors import AgentError, Code
from agent.model.transfer import S3Place
from agent.remote import web

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket and a prefix ("" or "a/b"). endpoint: "" for AWS."""

    bucket: str
    prefix: str
    endpoint: str
    path_style: bool

    def name_of(self, key: str) -> str:
        """The object's whole key in the bucket."""
        if not key or any(part in ("", ".", "..") for part in key.split("/")):
            raise AgentError(
                f"cannot use {key!r} as a key: it leads out of {self}", code=Code.BAD_REQUEST
            )
        return f"{self.prefix}/{key}" if self.prefix else key

    def key_of(self, name: str) -> str:
        """The key in the store of an object of the bucket."""
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name

    def request_url(self, region: str, name: str, query: Mapping[str, str]) -> str:
        """What to ask for: quoted as the signature wants it. name: "" for the bucket itself."""
        scheme, host = self._host(region)
        # a dot in the bucket's name does not go with the wildcard of AWS's certificate
        in_path = self.path_style or (not self.endpoint and "." in self.bucket)
        path = quote(name, safe="/~")
        where = f"{host}/{self.bucket}/{path}" if in_path else f"{self.bucket}.{host}/{path}"
        pairs = [f"{quote(key, safe='~')}={quote(query[key], safe='~')}" for key in sorted(query)]
        return f"{scheme}://{where}" + ("?" + "&".join(pairs) if pairs else "")

    def _host(self, region: str) -> tuple[str, str]:
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            return scheme, host
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return "https", f"s3.{region}.{domain}"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def parse_place(place: S3Place) -> S3Address:
    """The address of a place; raises AgentError with what is wrong in it."""
    parts, endpoint = web.split(place.url), web.split(place.endpoint)
    prefix = parts.path.strip("/")
    problem = ""
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
        problem = "it is not s3://bucket/prefix"
    elif parts.query or parts.fragment or any(p in ("", ".", "..") for p in prefix.split("/")[1:]):
        problem = "its prefix has an empty part, a dot, ? or # in it"
    elif place.region and not _REGION.fullmatch(place.region):
        problem = f"{place.region!r} is no region"
    elif place.endpoint and (endpoint.scheme not in ("http", "https") or not endpoint.hostname):
        problem = f"its endpoint {place.endpoint!r} is not an http:// or https:// URL"
    elif place.endpoint and ("@" in endpoint.netloc or endpoint.path.strip("/") or endpoint.query):
        problem = "its endpoint is more than scheme, host and port"
    if problem:
        raise AgentError(
            f"cannot use {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: {problem}",
            code=Code.CONFIG_INVALID,
            remedy="Write it as url: s3://bucket/prefix, with region: or endpoint: beside it",
        )
    root = f"{endpoint.scheme}://{endpoint.netloc}" if place.endpoint else ""
    return S3Address(parts.netloc, prefix, root, place.path_style)
