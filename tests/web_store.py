"""A folder served over HTTP as a store: ETags, 304, counted requests, and outages on demand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebStore:
    """What a test looks at and changes. answer_with: a status instead of the files, 0 for none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.answer_with = 0
        self.url = ""

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return self.requests.count(path)


@contextmanager
def serving(root: Path) -> Iterator[WebStore]:
    """Serve a folder on loopback until the block ends."""
    store = WebStore(root)
    root.mkdir(parents=True, exist_ok=True)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            store.requests.append(self.path)
            file = root / self.path.lstrip("/")
            if store.answer_with:
                self._send(store.answer_with, b"")
            elif not file.is_file():
                self._send(404, b"")
            else:
                body = file.read_bytes()
                etag = f'"{hashlib.md5(body).hexdigest()}"'
                is_known = self.headers.get("If-None-Match") == etag
                self._send(304 if is_known else 200, b"" if is_known else body, etag)

        def _send(self, status: int, body: bytes, etag: str = "") -> None:
            self.send_response(status)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
