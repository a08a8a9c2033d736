"""Real load balancers that follow Consul: nginx by a template, HAProxy by Consul's DNS.

Consul Template is in no registry that the tests reach. What it does is done here; the template is
rendered by the library that it uses, in tests/templates/main.go.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import consul_server, doc_blocks
from tests.consul_server import ConsulAgent
from tests.waiting import wait_until

_CONFIG = """
daemon off;
pid {base}/nginx.pid;
error_log {base}/error.log info;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {base}/temp;
    proxy_temp_path {base}/temp;
    fastcgi_temp_path {base}/temp;
    uwsgi_temp_path {base}/temp;
    scgi_temp_path {base}/temp;
    include {base}/rendered.conf;
}}
"""
_LEAST_SECONDS = 0.1  # between two questions: minDelayBetweenUpdates in its watch/view.go
_COMMAND_SECONDS = 10.0


def find_command(name: str) -> str:
    """Where it is, or a skip that says where it comes from."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"needs {name}: run .ci/debian-packages tests")
    return found


class Balancer:
    """port: where it listens; start and stop are its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.port = consul_server.free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_COMMAND_SECONDS)

    def status(self) -> int:
        """Of one answer, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_COMMAND_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().status

    def launch(self, argv: list[str]) -> None:
        """Start its process, and wait until it listens."""
        with (self.base / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.base)
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class RenderedNginx(Balancer):
    """consul: the agent that is asked. template: with `listen 80`, which is replaced.

    program: what renders. rendered: how often it was, with a reload each time but the first.
    """

    def __init__(
        self, base: Path, consul: ConsulAgent, *, token: str, template: str, program: Path
    ) -> None:
        super().__init__(base)
        self.rendered = 0
        self.problem: Exception | None = None
        self._consul = consul
        self._token = token
        self._program = program
        self._template = base / "template"
        self._template.write_text(template.replace("listen 80;", f"listen 127.0.0.1:{self.port};"))
        self._config = base / "nginx.conf"
        self._config.write_text(_CONFIG.format(base=base))
        self._ended = threading.Event()
        error_log = str(base / "error.log")
        self._argv = [find_command("nginx"), "-c", str(self._config), "-e", error_log]

    def start(self) -> None:
        """Start nginx with what Consul says now, and follow Consul from there on."""
        index = self._follow_once(0)
        _run(*self._argv, "-t")
        self.launch(self._argv)
        threading.Thread(target=self._follow, args=(index,), daemon=True).start()

    def stop(self) -> None:
        """End both; raises what the rendering has failed with."""
        self._ended.set()
        super().stop()
        if self.problem is not None:
            raise self.problem

    def config(self) -> str:
        """What was rendered last."""
        return (self.base / "rendered.conf").read_text()

    def _follow(self, index: int) -> None:
        while not self._ended.is_set():
            self._ended.wait(_LEAST_SECONDS)
            try:
                index = self._follow_once(index)
            except (OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
                if not self._ended.is_set():
                    self.problem = error
                return

    def _follow_once(self, index: int) -> int:
        """A blocking query, what it changes, and its index."""
        path = f"/v1/health/service/go-service?passing=1&stale=&index={index}&wait=2s"
        entries, found = self._consul.ask_with_index(path, token=self._token)
        text = self.render(entries)
        if self.rendered == 0 or text != self.config():
            partial = self.base / "rendered.partial"
            partial.write_text(text)
            partial.replace(self.base / "rendered.conf")
            if self.rendered:
                _run(*self._argv, "-s", "reload")
            self.rendered += 1
        return found if found >= index else 0

    def render(self, entries: list[dict[str, Any]]) -> str:
        """The template with these healthy entries."""
        return _run(
            str(self._program), str(self._template), given=json.dumps({"go-service": entries})
        )


class HAProxy(Balancer):
    """consul: the agent whose DNS it asks. config: as documented, with the places replaced."""

    def __init__(self, base: Path, consul: ConsulAgent, config: str) -> None:
        super().__init__(base)
        self._config = base / "haproxy.cfg"
        changed = doc_blocks.changed(
            config,
            ("127.0.0.1:8600", f"127.0.0.1:{consul.dns_port}"),
            ("bind :80", f"bind 127.0.0.1:{self.port}"),
        )
        # what Debian's haproxy.cfg has, and no second try
        defaults = "timeout connect 5s\n timeout client 50s\n timeout server 50s\n retries 0\n"
        self._config.write_text(f"defaults\n mode http\n {defaults}\n{changed}")

    def start(self) -> None:
        argv = [find_command("haproxy"), "-f", str(self._config)]
        _run(*argv, "-c")
        self.launch([*argv, "-db"])
        wait_until(lambda: self.status() == 200)  # 503 before Consul's first answer


def _run(*argv: str, given: str = "") -> str:
    """What a command prints; it has to work."""
    done = subprocess.run(
        argv, input=given, capture_output=True, text=True, timeout=_COMMAND_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_Any = TypeVar("_Any", bound=Balancer)


@contextlib.contextmanager
def running(balancer: _Any) -> Iterator[_Any]:
    """It runs inside."""
    try:
        balancer.start()
        yield balancer
    finally:
        balancer.stop()
