"""A web server on loopback that answers as a test says, down to the bytes and when they come."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One that came. target: path and query, as they were sent. headers: names in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def start(self) -> int:
        """The first byte that Range asks for; 0 without one."""
        text = self.headers.get("range", "bytes=0-")
        return int(text.removeprefix("bytes=").partition("-")[0])


Answering = Callable[[Request], bytes | Iterable[bytes]]


def answer(status: int, body: bytes = b"", **headers: object) -> bytes:
    """A whole answer; header names with _ for -. content_length=… may lie."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("content-length", len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} X\r\n{lines}Connection: close\r\n\r\n".encode() + body


def file_answer(request: Request, body: bytes, *, etag: str = "", **headers: object) -> bytes:
    """The file as good servers give it: with ranges, and only where the conditions hold."""
    etag = etag or f'"{hashlib.md5(body).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return answer(304, etag=etag)
    if request.headers.get("if-match", etag) != etag:
        return answer(412)
    start = request.start if request.headers.get("if-range", etag) == etag else 0
    if not start:
        return answer(200, body, etag=etag, **headers)
    if start >= len(body):
        return answer(416, content_range=f"bytes */{len(body)}")
    content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return answer(206, body[start:], etag=etag, content_range=content_range, **headers)


class WebServer:
    """answering: may give the answer in pieces, and wait between them; requests: what came."""

    def __init__(self, answering: Answering, context: ssl.SSLContext | None = None) -> None:
        self.answering = answering
        self.requests: list[Request] = []
        self.stopped = threading.Event()
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def stall(self) -> Iterator[bytes]:
        """Nothing more, until the test ends."""
        self.stopped.wait(30)
        yield from ()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            request = _read(connection)
            if request is None:
                return
            self.requests.append(request)
            given = self.answering(request)
            if request.method == "HEAD":
                assert isinstance(given, bytes)
                given = given.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            for piece in [given] if isinstance(given, bytes) else given:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)


@contextmanager
def web_server(answering: Answering, context: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    server = WebServer(answering, context)
    try:
        yield server
    finally:
        server.close()


def _read(connection: socket.socket) -> Request | None:
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            return None
        head += received
        if head[0] == 0x16:  # TLS, to a server without
            return Request("TLS", "", {}, b"")
    head, _, body = head.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get("content-length", "0")):
        received = connection.recv(65536)
        if not received:
            return None
        body += received
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body)
