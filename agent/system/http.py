"""HTTP for status checks: aiohttp and JSON pointers, given back as our types and errors."""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jsonpointer

from agent import __version__
from agent.model.errors import AgentError, Code

_CHUNK_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """One answer. value: its JSON; None where a status other than 200 came without JSON.

    peer: the address and port that the connection went to, None where that is not known.
    """

    status: int
    value: object
    peer: tuple[str, int] | None = None


class _Response(aiohttp.ClientResponse):
    """Remembers its peer: once all of an answer was read, the connection is gone."""

    peer: tuple[str, int] | None = None

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        transport = connection.transport
        name = None if transport is None else transport.get_extra_info("peername")
        self.peer = None if name is None else (name[0], name[1])
        return await super().start(connection)


class HttpClient:
    """Asks HTTP endpoints, each time anew: no proxy, no redirect, no cookie, no kept connection.

    A kept connection could be answered by the process that is being replaced.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def read_json(
        self, url: str, *, timeout_seconds: float, limit_bytes: int = 2**20
    ) -> JsonAnswer:
        """GET url and parse its answer; raise AgentError (STATUS_UNREACHABLE) with the cause.

        timeout_seconds bounds all of it, from the connection to the last byte; more than
        limit_bytes are not read. Fractions are given as text, as they were written: a version
        such as 1.210 is not the number 1.21.
        """
        response, body = await self._read(url, timeout_seconds, limit_bytes)
        if len(body) > limit_bytes:
            raise _unreachable(url, f"its answer is larger than {limit_bytes} bytes")
        value = _parse(url, body, required=response.status == 200)
        return JsonAnswer(response.status, value, response.peer)

    async def read_status(self, url: str, *, timeout_seconds: float) -> JsonAnswer:
        """GET url for its HTTP status alone; raise AgentError as read_json does."""
        response, _ = await self._read(url, timeout_seconds, 0)
        return JsonAnswer(response.status, None, response.peer)

    async def close(self) -> None:
        """Close the session; the next question opens another one."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _read(
        self, url: str, timeout_seconds: float, limit_bytes: int
    ) -> tuple[_Response, bytearray]:
        """The ended response and its body; a body beyond the limit is cut somewhere past it."""
        if not _is_askable(url):
            raise _unreachable(url, "it is not an http:// or https:// URL")
        body = bytearray()
        try:
            async with self._open_session().get(
                url,
                timeout=aiohttp.ClientTimeout(total=timeout_seconds),
                allow_redirects=False,
            ) as response:
                while len(body) <= limit_bytes:
                    chunk = await response.content.read(_CHUNK_BYTES)
                    if not chunk:
                        break
                    body += chunk
                assert isinstance(response, _Response)
                return response, body
        except TimeoutError as error:
            raise _unreachable(url, f"no answer within {timeout_seconds:.3g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(url, _cause(error)) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                response_class=_Response,
                # as it is: a few packed bytes could otherwise become any number of them
                auto_decompress=False,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"deploy-agent/{__version__}",
                },
            )
        return self._session


def resolve(value: object, pointer: str) -> object | None:
    """What the JSON pointer (RFC 6901, "/version") names in value; None where nothing is.

    Raises AgentError for a text that is no JSON pointer.
    """
    try:
        parsed = jsonpointer.JsonPointer(pointer)
    except jsonpointer.JsonPointerException as error:
        raise AgentError(
            f"cannot use {pointer!r} as a JSON pointer: {error}",
            code=Code.APPSPEC_INVALID,
            remedy="Begin it with a slash: /version",
        ) from error
    try:
        found: object = parsed.resolve(value, None)
    except jsonpointer.JsonPointerException:
        return None  # it goes on below something that is neither object nor list
    return None if isinstance(found, jsonpointer.EndOfList) else found


def port_of(url: str) -> int:
    """The port that a URL names, or that of its scheme."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def without_secrets(url: str) -> str:
    """The URL without user, password and query, which may hold secrets."""
    if not _is_askable(url):
        return "(not a URL)" if "@" in url or "?" in url else repr(url)
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _parse(url: str, body: bytearray, *, required: bool) -> object:
    try:
        value: object = json.loads(body, parse_float=str)
    except (ValueError, RecursionError) as error:
        if not required:
            return None
        text = body[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
        raise _unreachable(url, f"its answer is not JSON: {text!r}") from error
    return value


def _is_askable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _unreachable(url: str, cause: str) -> AgentError:
    return AgentError(
        f"cannot read {without_secrets(url)}: {cause}",
        code=Code.STATUS_UNREACHABLE,
        details=(cause,),
    )


def _cause(error: Exception) -> str:
    """Why there was no answer, in plain words."""
    match error:
        case aiohttp.ClientConnectorError():
            return _connect_cause(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case aiohttp.ClientPayloadError():
            return "the answer was cut off"
        case aiohttp.ClientResponseError():
            return f"its answer is not HTTP: {error.message[:_SHOWN_CHARACTERS].splitlines()[0]}"
        case OSError():
            return _connect_cause(error)
        case _:
            return f"the connection failed ({type(error).__name__})"


def _connect_cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error}"
    return os.strerror(error.errno).lower() if error.errno else str(error)
