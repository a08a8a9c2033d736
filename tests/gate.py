"""A TCP forwarder before a real server that lets nothing through from a certain request on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_CHUNK_BYTES = 64 * 1024


class Gate:
    """endpoint: what to connect to instead. Connections are forwarded until one is held.

    A request is held whose first bytes contain `hold_at`: nothing of it arrives until release().
    """

    def __init__(self, endpoint: str, hold_at: bytes) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._hold_at = hold_at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.has_held = threading.Event()
        self._released = threading.Event()
        self._is_closed = False
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        """Let what was held go on, and everything that comes after it."""
        self._released.set()

    def close(self) -> None:
        """End all connections; what was held never arrives."""
        self._is_closed = True
        self._released.set()
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._server)
            except OSError:
                return
            self._open += [ours, theirs]
            for pair in ((ours, theirs, True), (theirs, ours, False)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                if is_request and self._hold_at in chunk and not self._released.is_set():
                    self.has_held.set()
                    self._released.wait(60)
                    if self._is_closed:
                        return
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def gate(endpoint: str, hold_at: bytes) -> Iterator[Gate]:
    """A Gate, until the end of the block."""
    opened = Gate(endpoint, hold_at)
    try:
        yield opened
    finally:
        opened.close()
