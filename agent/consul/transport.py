"""HTTP to the local Consul agent on aiohttp, with the methods that python-consul calls.

https://developer.hashicorp.com/consul/api-docs/features/blocking: Consul answers a blocking query
up to wait/16 late, so a client that waits less sees a timeout where there is none.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from agent import __version__
from agent.consul.secrets import SecretFiles, Secrets, plain_tls
from agent.model.settings import ConsulSettings

CONNECT_SECONDS = 3.0
MAX_BYTES = 64 * 2**20
_CHUNK_BYTES = 64 * 1024
_CUT = (errno.ECONNRESET, errno.EPIPE)
# what OpenSSL 3.0 and 3.5 call an answer in plain HTTP
_NOT_TLS = ("wrong version number", "record layer failure", "http request", "packet length")
_CONNECTIONS = 100  # Consul's own limit for a client is 200 (limits.http_max_conns_per_client)

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What Consul said; the names are those that python-consul reads."""

    code: int
    headers: Mapping[str, str]
    body: bytes


class Refusal(Exception):
    """Consul answered with an error. reason: its own words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class Trouble(StrEnum):
    """Kinds of no answer whose remedies differ."""

    CERTIFICATE = "we do not accept its certificate"
    OURS = "it does not accept ours, or wants one"
    NO_TLS = "it speaks no TLS"
    NAME = "its name is not known"
    CUT = "it took the connection and closed it, as it does where a client has too many"
    OTHER = "it may be down"


class NoAnswer(Exception):
    """Consul did not answer, and why."""

    def __init__(self, cause: str, *, trouble: Trouble = Trouble.OTHER) -> None:
        super().__init__(cause)
        self.trouble = trouble


class Transport:
    """Makes each request anew: no proxy, no redirect, no kept connection, no token in a URL.

    A kept connection would fail once after each restart of the Consul agent.
    """

    def __init__(self, settings: ConsulSettings, *, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds
        is_socket = settings.address.startswith("unix://")
        self._socket_path = settings.address.removeprefix("unix://") if is_socket else ""
        self._base = "http://consul" if is_socket else settings.address.rstrip("/")
        self._files = SecretFiles(settings)
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self,
        callback: Callable[[Answer], Any] | None,
        path: str,
        params: Pairs | None = None,
        **_of_the_library: Any,
    ) -> Any:
        """GET; what callback makes of an answer with status 200 or 404, or the Answer itself."""
        return _given(callback, await self.ask("GET", path, params))

    async def put(
        self,
        callback: Callable[[Answer], Any] | None,
        path: str,
        params: Pairs | None = None,
        **of_the_library: Any,
    ) -> Any:
        """PUT, as get; the library gives the body as "data"."""
        content = of_the_library.get("data", b"")
        return _given(callback, await self.ask("PUT", path, params, content))

    async def token_mark(self) -> int:
        """Of the token as it is now: another token has another one."""
        return hash((await asyncio.to_thread(self._files.read)).token)

    async def close(self) -> None:
        """Close what is open; the next request opens it again."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self, method: str, path: str, params: Pairs | None = None, content: str | bytes = b""
    ) -> Answer:
        """One request. Raises Refusal for any status but 200 and 404, or NoAnswer.

        AgentError (CONFIG_INVALID): token or certificates cannot be read.
        """
        pairs = _pairs(params)
        secrets = await asyncio.to_thread(self._files.read)
        try:
            return await self._ask_once(method, path, pairs, content, secrets=secrets)
        except Refusal as error:
            # a question may have waited for minutes while the token was replaced
            newer = await asyncio.to_thread(self._files.read)
            if error.status != 403 or newer.token == secrets.token:
                raise
        return await self._ask_once(method, path, pairs, content, secrets=newer)

    async def _ask_once(
        self,
        method: str,
        path: str,
        pairs: list[tuple[str, str]],
        content: str | bytes,
        *,
        secrets: Secrets,
    ) -> Answer:
        url = self._base + quote(path, safe="/:") + (f"?{urlencode(pairs)}" if pairs else "")
        within = self._answer_seconds + _wait_seconds(pairs) * 17 / 16
        tls: dict[str, Any] = {} if secrets.context is None else {"ssl": secrets.context}
        try:
            async with self._open_session().request(
                method,
                url,
                data=content or None,
                headers={"X-Consul-Token": secrets.token} if secrets.token else {},
                **tls,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=CONNECT_SECONDS + 2 * within,
                    sock_connect=CONNECT_SECONDS,
                    sock_read=within,
                ),
            ) as response:
                body = await _read(response)
                if response.status not in (200, 404):
                    raise _refusal(response, body)
                return Answer(response.status, response.headers, body)
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {within:.3g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer(error) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            options: dict[str, Any] = {"force_close": True, "limit": _CONNECTIONS}
            self._session = aiohttp.ClientSession(
                connector=(
                    aiohttp.UnixConnector(self._socket_path, **options)
                    if self._socket_path
                    else aiohttp.TCPConnector(**options)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers={
                    "Accept-Encoding": "identity",
                    "User-Agent": f"deploy-agent/{__version__}",
                },
            )
        return self._session


def _given(callback: Callable[[Answer], Any] | None, answer: Answer) -> Any:
    return answer if callback is None else callback(answer)


def _pairs(params: Pairs | None) -> list[tuple[str, str]]:
    """Query parameters. Old versions of the library put the token there: URLs are logged."""
    items = params.items() if isinstance(params, Mapping) else params or ()
    return [(name, str(value)) for name, value in items if name != "token"]


def _wait_seconds(pairs: list[tuple[str, str]]) -> float:
    """The wait= of a blocking query, which is "60s" where we ask for one."""
    return next((float(value.rstrip("s")) for name, value in pairs if name == "wait"), 0.0)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while chunk := await response.content.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            response.close()
            raise Refusal(413, f"the answer is larger than {MAX_BYTES} bytes")
    return bytes(body)


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> Refusal:
    lines = body[:1000].decode("utf-8", "replace").strip().splitlines()
    reason = lines[0] if lines else response.reason or "no reason given"
    return Refusal(response.status, reason[:300])


def _no_answer(error: Exception) -> NoAnswer:
    """Why there was no answer, in plain words."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            inner = error.certificate_error
            cause = getattr(inner, "verify_message", "") or str(inner)
            said = f"its certificate is not accepted: {cause}"
            return NoAnswer(said, trouble=Trouble.CERTIFICATE)
        case aiohttp.ServerDisconnectedError():
            return _cut()
        case aiohttp.ClientPayloadError():
            return NoAnswer("the answer was cut off")
        case _:
            return _failed_connection(error)


def _failed_connection(error: Exception) -> NoAnswer:
    failed = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if not isinstance(failed, OSError):
        return NoAnswer(f"the connection failed ({type(error).__name__})")
    # an alert of the other side comes as an OSError of aiohttp's own, with the words of OpenSSL
    words = failed.strerror or str(failed)
    if isinstance(failed, ssl.SSLError) or words.startswith("[SSL"):
        return _failed_tls(words)
    if failed.errno in _CUT or "can not write request body" in words:
        return _cut()
    # asyncio puts the address into strerror; the errors of a name have a number below 0
    number = failed.errno or 0
    trouble = Trouble.NAME if isinstance(failed, socket.gaierror) else Trouble.OTHER
    return NoAnswer((os.strerror(number) if number > 0 else words).lower(), trouble=trouble)


def _failed_tls(words: str) -> NoAnswer:
    """words: of OpenSSL, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)"."""
    cause = plain_tls(words)
    if any(each in cause for each in _NOT_TLS):
        return NoAnswer("what answers there speaks no TLS", trouble=Trouble.NO_TLS)
    trouble = Trouble.OURS if "alert" in cause else Trouble.CERTIFICATE
    return NoAnswer(f"TLS failed: {cause}", trouble=trouble)


def _cut() -> NoAnswer:
    return NoAnswer("the connection was closed without an answer", trouble=Trouble.CUT)
