"""Small bundles for tests: a service that shows which version serves, and hooks that log."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

_DEFLATED_CHARACTERS = 2**20  # more of them take longer to deflate than to deploy
# The hooks write who ran into <base>/events, start a real background process, and keep the
# version that serves in <base>/run/serving: what a person would look at on a host.
_START = """#!/bin/sh
echo "start $REVISION_VERSION $LIFECYCLE_EVENT" >> {base}/events
mkdir -p {base}/run
sleep 300 < /dev/null > /dev/null 2>&1 &
echo $! > {base}/run/pid
cat {base}/app/version > {base}/run/serving
"""
_STOP = """#!/bin/sh
echo "stop $REVISION_VERSION" >> {base}/events
if [ -f {base}/run/pid ]; then kill "$(cat {base}/run/pid)" 2>/dev/null; fi
rm -f {base}/run/pid {base}/run/serving
exit 0
"""
_NOTE = """#!/bin/sh
echo "$LIFECYCLE_EVENT $REVISION_VERSION" >> {base}/events
"""
EVENTS = {
    "ApplicationStop": "stop",
    "BeforeInstall": "note",
    "AfterInstall": "note",
    "ApplicationStart": "start",
    "ValidateService": "note",
}


def make_bundle(
    base: Path,
    version: str,
    *,
    hooks: dict[str, str] | None = None,
    extra: str = "",
    files: dict[str, str] | None = None,
) -> Path:
    """A zip that installs <base>/app; `hooks` replaces scripts by event, `extra` adds YAML."""
    hooks = hooks or {}
    scripts = {"start": _START, "stop": _STOP, "note": _NOTE}
    lines = ["version: 0.0", "os: linux", "files:"]
    lines += ["  - source: app", f"    destination: {base}/app", "hooks:"]
    content = {"release.json": json.dumps({"version": version})}
    for event, script in EVENTS.items():
        name = f"scripts/{event}"
        text = hooks.get(event, scripts[script])
        content[name] = text.replace("{base}", str(base))
        lines += [f"  {event}:", f"    - location: {name}", "      timeout: 60"]
    content["appspec.yml"] = "\n".join(lines) + "\n" + extra
    content["app/version"] = f"{version}\n"
    content["app/same"] = "the same in every version\n"
    content[f"app/only-in-{version}"] = "x\n"
    content.update(files or {})
    path = base / "bundles" / f"service-{version}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(content.items()):
            is_big = len(text) > _DEFLATED_CHARACTERS
            archive.writestr(name, text, zipfile.ZIP_STORED if is_big else None)
    return path
