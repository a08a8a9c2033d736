"""Constant load on a load balancer: clients that count every answer, and all that is none."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

KEEPING = 3  # clients that keep their connection
FRESH = 3
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.005


class Answer(NamedTuple):
    """Who has answered."""

    host: str
    version: str


class Load:
    """Several clients, each with one request at a time; some keep their connection.

    failures: every status but 200, and every connection that was refused, reset or cut off.
    closed: kept connections that were closed before a byte of the answer had come. HTTP has its
    clients open another one for that (RFC 9112, 9.3.1), and these do, once.
    """

    def __init__(self, port: int) -> None:
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self.closed = 0
        self._port = port
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def client(self, *, keeps: bool) -> None:
        """Ask until the end."""
        connection = self._connect()
        while not self._ended.is_set():
            try:
                self._ask(connection, is_fresh=not keeps or connection.sock is None)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._fail(f"{type(error).__name__}: {error}")
            if not keeps:
                connection.close()
            self._ended.wait(_PAUSE_SECONDS)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)

    def _ask(self, connection: http.client.HTTPConnection, *, is_fresh: bool) -> None:
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
            connection.close()
            if is_fresh:
                raise
            with self._lock:
                self.closed += 1
            self._ask(connection, is_fresh=True)
            return
        body = response.read()
        if response.status != 200:
            self._fail(f"{response.status} {response.reason}")
            return
        with self._lock:
            self.answers.append(Answer(**json.loads(body)))

    def _fail(self, text: str) -> None:
        with self._lock:
            self.failures.append(text)

    def end(self) -> None:
        self._ended.set()

    def summary(self) -> str:
        return (
            f"{len(self.answers)} answers, {len(self.failures)} failures,"
            f" {self.closed} kept connections closed;"
        )

    def since(self, count: int) -> list[Answer]:
        """The answers after the first `count`."""
        with self._lock:
            return self.answers[count:]


@contextmanager
def running(port: int) -> Iterator[Load]:
    """Load on a port; the failures are what was seen until the end."""
    load = Load(port)
    threads = [
        threading.Thread(target=load.client, kwargs={"keeps": number < KEEPING}, daemon=True)
        for number in range(KEEPING + FRESH)
    ]
    for each in threads:
        each.start()
    try:
        yield load
    finally:
        load.end()
        for each in threads:
            each.join(2 * _ANSWER_SECONDS)
