"""Bundles for real hosts: a web service of systemd's, deployed by hooks or by `services: unit`."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field

URL = "http://127.0.0.1:8080/status"
_SERVER = """#!/usr/bin/python3
import http.server, json, sys
STATUS = %s
class Endpoint(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(STATUS).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
print("listening, version", STATUS["version"], flush=True)
http.server.ThreadingHTTPServer(("", 8080), Endpoint).serve_forever()
"""
_CRASH = """#!/bin/sh
echo "cannot connect to the database: no route to host" >&2
exit 3
"""
_UNIT = """[Unit]
Description=web {version}
[Service]
ExecStart=/opt/web/server
DynamicUser=yes
Restart=always
RestartSec=50ms
[Install]
WantedBy=multi-user.target
"""
# what a bundle for CodeDeploy does on Debian
_START = """#!/bin/sh -e
systemctl daemon-reload
systemctl enable --quiet web.service
systemctl restart web.service
"""
_STOP = """#!/bin/sh
systemctl stop web.service || true
"""


@dataclass(frozen=True)
class Hook:
    """A script of a lifecycle event. location: "" for one by the event's name."""

    text: str
    timeout: int = 30
    runas: str = ""
    location: str = ""

    def path(self, event: str) -> str:
        """Where it lies in the bundle."""
        return self.location or f"scripts/{event}"


@dataclass(frozen=True)
class Web:
    """A revision of the service. by: "hooks" starts it as CodeDeploy would, "unit" leaves it to us.

    reports: the version that its status endpoint tells, where it is not the revision's.
    crashes: the program ends at once, again and again.
    """

    version: str
    by: str = "hooks"
    reports: str = ""
    crashes: bool = False
    hooks: dict[str, Hook] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The zip's name."""
        return f"web-{self.version}.zip"

    def zipped(self) -> bytes:
        """The bundle."""
        content = {hook.path(event): hook.text for event, hook in self._hooks().items()}
        content["appspec.yml"] = self._appspec()
        content["release.json"] = json.dumps({"application": "web", "version": self.version})
        status = {"version": self.reports or self.version, "Database": "Good"}
        content["web/server"] = _CRASH if self.crashes else _SERVER % status
        content[f"web/only-in-{self.version}"] = "x\n"
        content["web.service"] = _UNIT.format(version=self.version)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in sorted(content.items()):
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (0o100755 if text.startswith("#!") else 0o100644) << 16
                entry.create_system = 3  # Unix, so that the mode counts
                archive.writestr(entry, text)
        return buffer.getvalue()

    def _hooks(self) -> dict[str, Hook]:
        if self.by == "unit":
            return self.hooks
        return {"ApplicationStop": Hook(_STOP), "ApplicationStart": Hook(_START), **self.hooks}

    def _appspec(self) -> str:
        service: dict[str, object] = {"unit": "web.service"} if self.by == "unit" else {}
        service["status"] = {
            "url": URL,
            "version": "/version",
            "healthy": {"/Database": "Good"},
            "within": "5s",
            "stable_for": "0.2s",
        }
        hooks = {
            event: [
                {"location": hook.path(event), "timeout": hook.timeout}
                | ({"runas": hook.runas} if hook.runas else {})
            ]
            for event, hook in self._hooks().items()
        }
        appspec = {
            "version": 0.0,
            "os": "linux",
            "files": [
                {"source": "web", "destination": "/opt/web"},
                {"source": "web.service", "destination": "/etc/systemd/system"},
            ],
            "hooks": hooks,
            "services": [service],
        }
        return json.dumps(appspec, indent=1)  # which is YAML
