"""HTTP for stores: aiohttp with our time limits, proxies and errors, streaming both ways."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

import aiohttp
import yarl

from agent import __version__
from agent.model.errors import AgentError, Code, TransientError
from agent.model.transfer import Patience

_BUFFER_BYTES = 128 * 1024
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254"})


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a file, to be sent from the disk.

    sent: is told how many of its bytes are on their way; from 0 again where it is sent again.
    """

    path: Path
    start: int
    length: int
    sent: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Call:
    """One request. url: quoted already, and sent as it is, for its signature covers that.

    doing: for errors, what it is for: "read s3://bucket/key".
    """

    url: str
    doing: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice | None = None


class Stream:
    """An answer whose body is still on its way; to be left with `async with`."""

    def __init__(self, response: aiohttp.ClientResponse, call: Call, patience: Patience) -> None:
        self._response = response
        self._patience = patience
        self.doing = call.doing
        self.url = call.url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers  # names in any case

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._response.close()  # a connection whose answer was read to its end is kept all the same

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of any size; raises TransientError where it breaks."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _broken(self.doing, error, self._patience) from error

    async def read(self, limit_bytes: int, *, seconds: float = 0.0) -> bytes:
        """All of a small body; raises AgentError beyond limit_bytes.

        seconds: in which it has to be here, 0.0 for slow_seconds of our patience.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(seconds or self._patience.slow_seconds):
                async for piece in self.pieces():
                    body += piece
                    if len(body) > limit_bytes:
                        raise AgentError(
                            f"cannot {self.doing}: it is larger than {limit_bytes} bytes",
                            code=Code.SOURCE_UNAVAILABLE,
                        )
        except TimeoutError as error:
            raise _broken(self.doing, error, self._patience) from error
        return bytes(body)


class Web:
    """Sends requests: no cookies, no redirects, nothing unpacked; through the proxy that is set."""

    def __init__(self, patience: Patience, *, use_proxies: bool = True) -> None:
        self._patience = patience
        self._use_proxies = use_proxies
        self._session: aiohttp.ClientSession | None = None

    async def open(self, call: Call) -> Stream:
        """Send it, and give back the answer once its headers are here; raises AgentError."""
        patience = self._patience
        proxy, proxy_headers = _proxy_for(call.url) if self._use_proxies else (None, {})
        sends_file = isinstance(call.body, Slice)
        # aiohttp before 3.9 counts sock_read from the beginning of what is sent
        sock_read = None if sends_file else patience.stall
        timeout = aiohttp.ClientTimeout(total=None, connect=patience.connect, sock_read=sock_read)
        guard = asyncio.timeout(patience.stall if sends_file else None)
        headers = dict(call.headers)
        if call.url.startswith("http:"):
            headers |= proxy_headers  # there is no CONNECT to bear them
        body: bytes | AsyncIterator[bytes] | None
        if isinstance(call.body, Slice):
            body = _read_slice(call.body, guard, patience.stall)
            headers["Content-Length"] = str(call.body.length)
        else:
            body = call.body
        try:
            async with guard:
                response = await self._open_session().request(
                    call.method,
                    yarl.URL(call.url, encoded=True),
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    timeout=timeout,
                    proxy=proxy,
                    proxy_headers=proxy_headers,
                    expect100=sends_file,  # a refusal costs no upload, and is not lost in it
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _broken(call.doing, error, patience) from error
        return Stream(response, call, patience)

    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # it would send passwords of ~/.netrc; proxies: _proxy_for
                auto_decompress=False,  # digests are of what was stored
                read_bufsize=_BUFFER_BYTES,
                headers={
                    "Accept-Encoding": "identity",
                    "User-Agent": f"deploy-agent/{__version__}",
                },
                skip_auto_headers=("Content-Type",),
            )
        return self._session


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by a Retry-After header: a number or a date (RFC 9110, 10.2.3); else 0.0."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def split(url: str) -> SplitResult:
    """The parts of a URL; all of them empty where it is none ("http://[", a port of 99999)."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: who would see a token that is sent there."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this host itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy_for(url: str) -> tuple[yarl.URL | None, dict[str, str]]:
    """By HTTPS_PROXY, HTTP_PROXY and NO_PROXY, with headers for it.

    None to this host and to EC2's metadata.
    """
    scheme, host, port = origin_of(url)
    if host in _METADATA or is_loopback(host):
        return None, {}
    proxies = urllib.request.getproxies_environment()
    text = proxies.get(scheme) or proxies.get("all", "")
    if not text or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None, {}
    proxy = yarl.URL(text if "://" in text else f"http://{text}")
    if proxy.user is None:
        return proxy, {}
    password = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return proxy.with_user(None), {"Proxy-Authorization": f"Basic {password}"}


async def _read_slice(
    part: Slice, guard: asyncio.Timeout, stall_seconds: float
) -> AsyncIterator[bytes]:
    """The bytes to send. guard: runs out where the other side takes none for stall_seconds."""
    loop = asyncio.get_running_loop()
    at, end = part.start, part.start + part.length
    while at < end and (
        piece := await asyncio.to_thread(_read_piece, part.path, at, min(_BUFFER_BYTES, end - at))
    ):
        at += len(piece)
        guard.reschedule(loop.time() + (stall_seconds if at < end else 2 * stall_seconds))
        yield piece
        part.sent(at - part.start)


def _read_piece(path: Path, start: int, length: int) -> bytes:
    """Opened for each piece: an upload may be cancelled anywhere, and leaves no open file."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(length)


def _broken(doing: str, error: Exception, patience: Patience) -> AgentError:
    """What went wrong between here and there, as a TransientError with its cause in plain words."""
    cause, remedy = _cause(error, patience)
    return TransientError(f"cannot {doing}: {cause}", code=Code.SOURCE_UNAVAILABLE, remedy=remedy)


def _cause(error: Exception, patience: Patience) -> tuple[str, str]:
    match error:
        case aiohttp.ClientProxyConnectionError():
            cause, _ = _connect_cause(error.os_error, error.host)
            proxy = f"{error.host}:{error.port}"
            return f"the proxy {proxy} does not answer: {cause}", "Check HTTPS_PROXY and NO_PROXY"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused it: HTTP {error.status}", "Check HTTPS_PROXY and NO_PROXY"
        case aiohttp.ClientConnectorCertificateError():
            return _tls_cause(error.certificate_error)
        case aiohttp.ClientConnectorError():
            return _connect_cause(error.os_error, error.host)
        case TimeoutError() if str(error).startswith("Connection timeout"):
            return f"no connection within {patience.connect:g} s", "Check routes and firewalls"
        case TimeoutError():
            return f"nothing came for {patience.stall:g} s", ""
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer", ""
        case aiohttp.ClientPayloadError():
            return "the answer was cut off", ""
        case aiohttp.ClientResponseError():
            return "its answer is not HTTP", ""
        case OSError():
            return _connect_cause(error, "")
        case _:
            return f"the connection failed ({type(error).__name__})", ""


def _connect_cause(error: OSError, host: str) -> tuple[str, str]:
    match error:
        case socket.gaierror():
            return f"the name {host} is not known", f"Check DNS on this host: getent hosts {host}"
        case ssl.SSLError():
            return _tls_cause(error)
        case _:
            # asyncio's own text repeats the address, and joins several of them
            return (os.strerror(error.errno).lower() if error.errno else str(error)), ""


def _tls_cause(error: Exception) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its TLS certificate is not trusted: {error.verify_message}",
            "Put its CA into /usr/local/share/ca-certificates, run update-ca-certificates",
        )
    reason = getattr(error, "reason", None) or error
    return f"TLS failed: {reason}", "Check that the URL's scheme and port are the ones of TLS"
