"""A service on loopback whose status endpoint answers as a test says, down to the bytes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

GOOD = {"Database": "Good", "Status for SQS queue": "Healthy", "version": "1.216"}


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def json_answer(content: object, status: str = "200 OK") -> bytes:
    return http_answer(json.dumps(content).encode(), status)


class StatusService:
    """answer: bytes for the n-th question, from 1; or several pieces, sent one by one."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.answer: Callable[[int], bytes | Iterator[bytes]] = lambda _: json_answer(GOOD)
        self.asked = 0
        self.stopped = threading.Event()
        self._socket = socket.socket(family)
        self._socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        self.url = f"http://{self.address}/status"

    def listen(self) -> None:
        """Before this, the port is taken and refuses every connection."""
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self._serve, args=(connection, self.asked), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer = self.answer(number)
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)


@contextmanager
def status_service(
    answer: Callable[[int], bytes | Iterator[bytes]] | bytes | None = None,
    family: socket.AddressFamily = socket.AF_INET,
) -> Iterator[StatusService]:
    """A service that listens; `answer` may be the same bytes for every question."""
    service = StatusService(family)
    if isinstance(answer, bytes):
        same = answer
        service.answer = lambda _: same
    elif answer is not None:
        service.answer = answer
    service.listen()
    try:
        yield service
    finally:
        service.close()
