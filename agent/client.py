"""Asks the running agent over its unix socket: HTTP/1.0 by hand, so that agentctl starts at once.

Measured on Debian 12: argparse, json and socket take 10 ms on top of the bare interpreter,
http.client would take 17 ms more, and typing 3 ms, which is why it is not imported here.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator

from agent.model.errors import AgentError, Code, Conflict, NotFound, NotPermitted, TransientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    Body = dict[str, Any]

SCHEMA = 1  # of the API's answers
SYSTEM_SOCKET = "/run/deploy-agent/agent.sock"

_CHUNK = 64 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ERRORS: dict[int, tuple[type[AgentError], Code]] = {
    400: (AgentError, Code.BAD_REQUEST),
    403: (NotPermitted, Code.NOT_PERMITTED),
    404: (NotFound, Code.NOT_FOUND),
    409: (Conflict, Code.CONFLICT),
    503: (TransientError, Code.INTERNAL),
}


def default_socket() -> str:
    """Where the agent listens: DEPLOY_AGENT_SOCKET, else the host's agent, else the user's own."""
    named = os.environ.get("DEPLOY_AGENT_SOCKET")
    if named:
        return named
    if os.geteuid() == 0 or os.path.exists(SYSTEM_SOCKET):
        return SYSTEM_SOCKET
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    if runtime_dir:
        return os.path.join(runtime_dir, "deploy-agent", "agent.sock")
    return os.path.expanduser("~/.local/state/deploy-agent/run/agent.sock")


def quote(text: str) -> str:
    """Percent-encode one part of a path or query (urllib.parse would cost its import)."""
    octets = text.encode(errors="surrogateescape")
    return "".join(chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in octets)


def target(path: str, **query: str | int | None) -> str:
    """The path with those query values that are given (None leaves one out)."""
    pairs = [f"{key}={quote(str(value))}" for key, value in query.items() if value is not None]
    return path + ("?" + "&".join(pairs) if pairs else "")


class Client:
    """The agent at one socket. Every request is its own connection, so nothing is kept open.

    instead: what to do to do without an agent, where that can be.
    """

    def __init__(self, socket_path: str, timeout: float = 30.0, *, instead: str = "") -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self._remedy = f"{_START}; or do without it: {instead}" if instead else _START

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def request(
        self, method: str, path: str, body: Body | None = None, *, timeout: float | None = None
    ) -> tuple[int, Body]:
        """Ask and give back (HTTP status, answer), whatever the status.

        Raises AgentError where no answer came (agent-unreachable, not-permitted) or where
        it cannot be understood (internal).
        """
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        exchange = _Exchange(self.socket_path, self._remedy)
        try:
            status = exchange.start(method, path, body, deadline)
            return status, exchange.read_answer(deadline)
        except TimeoutError as error:
            raise _unreachable(f"no answer within {seconds:g} s", _UNANSWERED) from error
        finally:
            exchange.close()

    def call(
        self, method: str, path: str, body: Body | None = None, *, timeout: float | None = None
    ) -> Body:
        """Ask and give back the answer; an error of the agent is raised as AgentError."""
        status, answer = self.request(method, path, body, timeout=timeout)
        if status >= 400:
            raise _refusal(status, answer)
        return answer

    def stream(self, path: str, *, deadline: float | None = None) -> Iterator[Body]:
        """Yield the objects of an NDJSON answer as they arrive.

        Raises TimeoutError at `deadline` (monotonic seconds), AgentError as call() does, and
        agent-unreachable where the connection breaks in the middle of a line.
        """
        exchange = _Exchange(self.socket_path, self._remedy)
        opening = time.monotonic() + self.timeout
        try:
            try:
                status = exchange.start("GET", path, None, opening)
                if status >= 400:
                    raise _refusal(status, exchange.read_answer(opening))
            except TimeoutError as error:
                raise _unreachable(f"no answer within {self.timeout:g} s", _UNANSWERED) from error
            for line in exchange.read_lines(deadline):
                yield _parse(line)
        finally:
            exchange.close()


class _Exchange:
    """One request and its answer, on one connection."""

    def __init__(self, socket_path: str, remedy: str) -> None:
        self._path = socket_path
        self._remedy = remedy  # where nothing listens
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = b""
        self._length: int | None = None

    def close(self) -> None:
        self._socket.close()

    def start(self, method: str, path: str, body: Body | None, deadline: float) -> int:
        """Connect, send, and read up to the end of the headers. Gives the HTTP status."""
        self._connect(deadline)
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        try:
            self._socket.sendall(head.encode("ascii") + content)
        except TimeoutError:
            raise
        except OSError as error:
            raise _unreachable("the connection broke", _GONE) from error
        return self._read_head(deadline)

    def read_answer(self, deadline: float) -> Body:
        """The whole body as one JSON object of a schema that this client knows."""
        while self._length is None or len(self._rest) < self._length:
            octets = self._receive(deadline)
            if not octets:
                break
            self._rest += octets
        if self._length is not None and len(self._rest) < self._length:
            raise _unreachable("it ended in the middle of an answer", _GONE)
        answer = _parse(self._rest)
        if answer.get("schema") != SCHEMA:
            raise AgentError(
                f"cannot read the agent's answer: schema {answer.get('schema')!r}, "
                f"this agentctl reads {SCHEMA}",
                code=Code.INTERNAL,
                remedy="Compare the versions: agentctl version; use the agentctl of the agent",
            )
        return answer

    def read_lines(self, deadline: float | None) -> Iterator[bytes]:
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            yield from (line for line in lines if line.strip())
            octets = self._receive(deadline)
            if not octets:
                break
            self._rest += octets
        if self._rest.strip():
            raise _unreachable("it ended in the middle of a line", _GONE)

    def _connect(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._socket.connect(self._path)
        except TimeoutError:
            raise
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise _unreachable(f"nothing listens at {self._path}", self._remedy) from error
        except PermissionError as error:
            raise NotPermitted(
                f"cannot reach deploy-agent: you may not open {self._path}",
                code=Code.NOT_PERMITTED,
                remedy="Ask as root: sudo agentctl status",
            ) from error
        except OSError as error:
            raise _unreachable(f"{self._path}: {error.strerror or error}", self._remedy) from error

    def _read_head(self, deadline: float) -> int:
        received = b""
        while b"\r\n\r\n" not in received:
            octets = self._receive(deadline)
            if not octets or len(received) > _CHUNK:
                raise _unreachable("it closed the connection without an answer", _GONE)
            received += octets
        head, _, self._rest = received.partition(b"\r\n\r\n")
        first, *headers = head.decode("latin-1").split("\r\n")
        words = first.split()
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise _not_understood(head)
        for header in headers:
            name, _, value = header.partition(":")
            if name.strip().lower() == "content-length" and value.strip().isdecimal():
                self._length = int(value)
        return int(words[1])

    def _receive(self, deadline: float | None) -> bytes:
        """The next bytes, b"" at the end. Raises TimeoutError at the deadline."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            return self._socket.recv(_CHUNK)
        except TimeoutError:
            raise
        except OSError as error:
            raise _unreachable("the connection broke", _GONE) from error


_START = "Start it: systemctl start deploy-agent"
_UNANSWERED = "See what it is doing: systemctl status deploy-agent"
_GONE = "See why: journalctl -u deploy-agent -n 50"


def _unreachable(cause: str, remedy: str) -> AgentError:
    return AgentError(
        f"cannot reach deploy-agent: {cause}", code=Code.AGENT_UNREACHABLE, remedy=remedy
    )


def _not_understood(octets: bytes) -> AgentError:
    return AgentError(
        "cannot read the agent's answer: it is not what deploy-agent would say",
        code=Code.INTERNAL,
        details=(octets[:200].decode(errors="replace"),),
        remedy="Check what listens on that socket: ss -xlp",
    )


def _parse(octets: bytes) -> Body:
    try:
        answer = json.loads(octets)
    except ValueError as error:
        raise _not_understood(octets) from error
    if not isinstance(answer, dict):
        raise _not_understood(octets)
    return answer


def _refusal(status: int, answer: Body) -> AgentError:
    """The AgentError that the agent put into its answer."""
    kind, code = _ERRORS.get(status, (AgentError, Code.INTERNAL))
    error = answer.get("error")
    if not isinstance(error, dict):
        return AgentError(f"the agent answered with HTTP status {status}", code=code)
    if error.get("code") in set(Code):  # else a newer agent's code: the status says the kind
        code = Code(error["code"])
    return kind(
        str(error.get("message", "")),
        code=code,
        details=tuple(str(line) for line in error.get("details") or ()),
        remedy=str(error.get("remedy") or ""),
        where=str(error.get("where") or ""),
    )
