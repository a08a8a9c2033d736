"""Bundles with unit files of every kind, for the tests of units on real hosts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.host.bundles import URL, Web

_SERVER = """#!/usr/bin/python3
import http.server, json, os, signal, sys, threading
VERSION = "%s"
print("begins, version", VERSION, flush=True)
%s
class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"version": VERSION}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 8080), Endpoint).serve_forever()
"""
SERVES = ""
ENDS = "print('no database: giving up', flush=True); sys.exit(3)"
NEVER_READY = "signal.pause()"
READY_LATE = """import socket, time
time.sleep(4)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""
IS_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
ENDS_LATER = "threading.Timer(1.5, lambda: os._exit(4)).start()"

UNIT = """[Unit]
Description=web {version}
[Service]
ExecStart=/opt/web/server
{more}
[Install]
WantedBy=multi-user.target
"""
STATUS = {"url": URL, "version": "/version", "within": "30s", "stable_for": "0.5s"}


def service(**more: Any) -> dict[str, Any]:
    """The entry of web.service, with its status endpoint."""
    return {"unit": "web.service", "status": STATUS, **more}


@dataclass(frozen=True)
class UnitWeb(Web):
    """A revision by `services: unit`.

    does: what the program does before it serves. more: lines of its [Service] section.
    units: further files below /etc/systemd/system, by name. without: names that are left out.
    definitions: files for Consul's directory, by name.
    """

    by: str = "unit"
    does: str = SERVES
    more: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    services: tuple[Mapping[str, Any], ...] = (service(),)
    without: tuple[str, ...] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    behavior: str = "DISALLOW"

    def zipped(self) -> bytes:
        """The bundle."""
        content = {f"scripts/{event}": hook.text for event, hook in self.hooks.items()}
        content["appspec.yml"] = json.dumps(self._spec(), indent=1)
        content["release.json"] = json.dumps({"application": "web", "version": self.version})
        content["web/server"] = _SERVER % (self.reports or self.version, self.does)
        content["units/web.service"] = UNIT.format(version=self.version, more=self.more)
        content |= {f"units/{name}": text for name, text in self.units.items()}
        content |= {f"consul/{name}": text for name, text in self.definitions.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in sorted(content.items()):
                if name not in self.without:
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = (0o100755 if text.startswith("#!") else 0o100644) << 16
                    entry.create_system = 3  # Unix, so that the mode counts
                    archive.writestr(entry, text)
        return buffer.getvalue()

    def _spec(self) -> dict[str, Any]:
        files = [{"source": "web", "destination": "/opt/web"}]
        if "units/web.service" not in self.without or self.units:
            files.append({"source": "units", "destination": "/etc/systemd/system"})
        if self.definitions:
            files.append({"source": "consul", "destination": "/etc/consul.d"})
        return {
            "version": 0.0,
            "os": "linux",
            "files": files,
            "file_exists_behavior": self.behavior,
            "hooks": {
                event: [{"location": f"scripts/{event}", "timeout": hook.timeout}]
                for event, hook in self.hooks.items()
            },
            "services": self.services,
        }
