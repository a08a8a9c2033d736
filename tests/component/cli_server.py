"""A real HTTP server on a unix socket that speaks the agent's API, and agentctl run against it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ROOT = Path(__file__).resolve().parents[2]
Body = dict[str, Any]


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Body | None


@dataclass
class Raw:
    """An answer that the agent would never give: these bytes, and the end."""

    octets: bytes


# (HTTP status, body) | an NDJSON stream | raw bytes
Answer = tuple[int, Body] | Iterable[Body] | Raw


@dataclass
class ApiServer:
    """routes: ("GET", "/v1/status") -> what answers it. requests: what was asked."""

    socket: str
    routes: dict[tuple[str, str], Callable[[Request], Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Answer | Callable[[Request], Answer]) -> None:
        """Answer like this from now on."""
        self.routes[method, path] = answer if callable(answer) else lambda _: answer

    def asked(self, method: str) -> list[Request]:
        """The requests with this method."""
        return [request for request in self.requests if request.method == method]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        route = self.routes.get((request.method, request.path))
        if route is None:
            return 404, failure("not-found", f"cannot find {request.path}")
        return route(request)


def ok(**body: Any) -> tuple[int, Body]:
    """A good answer."""
    return 200, {"schema": 1, **body}


def failure(code: str, message: str, **more: Any) -> Body:
    """The body of an error."""
    error = {"code": code, "message": message, "details": [], "remedy": "", "where": "", **more}
    return {"schema": 1, "error": error}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    api: ApiServer


class _Connection(http.server.BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), body)
        answer = self.server.api.answer(request)
        match answer:
            case Raw(octets):
                self.wfile.write(octets)
            case (int(status), dict(content)):
                self._send(status, json.dumps(content).encode())
            case lines:
                self._send(200, None)
                for line in lines:
                    self.wfile.write(json.dumps(line).encode() + b"\n")

    def _send(self, status: int, content: bytes | None) -> None:
        self.send_response(status)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content or b"")

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # agentctl has enough
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def address_string(self) -> str:
        return "unix"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ApiServer]:
    """An API server in `folder`, until the end of the block."""
    api = ApiServer(str(folder / "agent.sock"))
    with _Server(api.socket, _Connection) as server:
        server.api = api
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def command(*args: str) -> list[str]:
    """The argv of agentctl."""
    return [sys.executable, "-m", "agent.cli.main", *args]


def environment(**more: str) -> dict[str, str]:
    """Where agentctl finds itself, and nothing of the outside that changes what it prints."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DEPLOY_AGENT")}
    for name in ("NO_COLOR", "TERM", "PYTHONUNBUFFERED"):
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **more}


def agentctl(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run agentctl to its end; `more` goes into its environment."""
    return subprocess.run(
        command(*args),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=9,
        check=False,
    )


def step(name: str, status: str = "done", **more: Any) -> Body:
    """A step of a deployment as the API tells it."""
    return {
        "name": name,
        "status": status,
        "started_at": 1000.0,
        "seconds": 0.31,
        "undo_seconds": 0.0,
        "note": "",
        "failure": None,
        **more,
    }


def cause(**more: Any) -> Body:
    """A failure as the API tells it."""
    return {
        "code": "hook-failed",
        "where": "ApplicationStart scripts/start.sh",
        "message": "cannot run hook scripts/start.sh: exit code 7",
        "evidence": ["connecting to the database", "no route to host"],
        "next": "agentctl logs d-7K3M9QX2P",
        **more,
    }


def deployment(outcome: str | None = "succeeded", **more: Any) -> Body:
    """A deployment as the API tells it."""
    return {
        "id": "d-7K3M9QX2P",
        "application": "go-service",
        "group": "default",
        "version": "1.215",
        "digest": "ab" * 32,
        "bundle": "/srv/go-service-1.215.zip",
        "trigger": "operator",
        "requested_by": "root",
        "status": "done" if outcome else "doing",
        "outcome": outcome,
        "step": "prune" if outcome else "start",
        "created_at": 1000.0,
        "started_at": 1000.0,
        "ended_at": 1004.2 if outcome else 0.0,
        "seconds": 4.2,
        "starts": 1,
        "previous_version": "1.214",
        "aborting": False,
        "failure": None,
        "steps": [step("fetch"), step("start", seconds=3.1)] if outcome else [step("fetch")],
        "progress": None,
        **more,
    }


def application(**more: Any) -> Body:
    """An application as the status tells it: all is good."""
    return {
        "application": "go-service",
        "group": "default",
        "current": {
            "version": "1.215",
            "digest": "ab" * 32,
            "deployment_id": "d-7K3M9QX2P",
            "committed_at": 1004.0,
            "release": "d-7K3M9QX2P",
        },
        "previous": None,
        "running": None,
        "waiting": [],
        "last": deployment(),
        "quarantined": [],
        "health": {"state": "healthy", "detail": "", "reported_version": "1.215"},
        **more,
    }


def status(*applications: Body, hold: Body | None = None) -> Body:
    """The answer to GET /v1/status."""
    return {
        "schema": 1,
        "agent": {
            "version": "0.1.0",
            "pid": 42,
            "started_at": 900.0,
            "state_dir": "/var/lib/deploy-agent",
            "decision": "nothing new",
            "sources": [{"source": "directory /srv", "decision": "nothing new", "problem": ""}],
        },
        "hold": hold,
        "applications": list(applications),
    }
