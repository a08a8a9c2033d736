"""A service that takes a moment for each answer, and ends at once on SIGTERM: run as a program."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER_SECONDS = 0.03
_NEVER = threading.Event()


class _Server(ThreadingHTTPServer):
    """options: of the command line. log: a line for each answer of it, when it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", options.port), _Answer)
        self.options = options
        self.log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        options = self.server.options
        match self.path:
            case "/status":
                self._answer({"version": options.reports or options.version})
            case "/health":
                self._answer({}, 503 if options.is_sick else 200)
            case _:
                os.write(self.server.log, f"{time.time()} {options.version}\n".encode())
                _NEVER.wait(ANSWER_SECONDS)
                self._answer({"host": options.host, "version": options.version})

    def _answer(self, content: object, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main() -> None:
    """Serve until a signal ends it, as it does a program that minds none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("version")
    parser.add_argument("log")
    parser.add_argument("--reports", default="", help="another version than its own")
    parser.add_argument("--is-sick", action="store_true", help="what Consul asks fails")
    parser.add_argument("--ends", action="store_true", help="before it listens")
    options = parser.parse_args()
    if options.ends:
        parser.exit(1, "cannot reach the database\n")
    _Server(options).serve_forever()


if __name__ == "__main__":
    main()
