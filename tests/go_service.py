"""Bundles of examples/go-service for tests: good ones, and ones broken in a known way."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "go-service"
# Go's own cache, safe for several at once: only the first build on a machine is slow.
_GO_CACHE = EXAMPLE / "build" / "cache"
_BUILD_SECONDS = 240.0
_AGENTCTL = f"{sys.executable} -m agent.cli.main"


class Broken(StrEnum):
    """What is wrong with a bundle; each value ends in what the host shows of it."""

    UNHEALTHY = "it answers, and its queue is Unreachable"
    NO_START = "its process ends before it is ready, exit code 1"
    CRASH_LOOP = "it is ready and well, and killed a second later, again and again"
    MIGRATION = "a migration was changed; where it was applied before, migrating fails"


_UNIT_LINES = {
    Broken.UNHEALTHY: "Environment=QUEUE_ADDRESS=127.0.0.1:9",
    Broken.NO_START: "Environment=LISTEN=nowhere",
    Broken.CRASH_LOOP: "RuntimeMaxSec=1s",
}


def build_bundle(
    folder: Path,
    version: str,
    *,
    style: str = "services",
    reported_version: str = "",
    broken: Broken | None = None,
) -> Path:
    """Write go-service-<version>.zip into the folder. style: services, or aws.

    reported_version: what the binary was stamped with, where that is another one. Hosts need the
    service's user for the style services: run EXAMPLE / "scripts/create-user" there once.
    """
    good = _build(version, style)
    binary = _read(_build(reported_version, style), "go-service") if reported_version else None
    bundle = folder / good.name
    partial = folder / f".{good.name}.partial"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(partial, "w") as target:
        for entry in source.infolist():
            content = _changed(entry.filename, source.read(entry), broken)
            if binary is not None and entry.filename == "go-service":
                content = binary
            target.writestr(entry, content)
    partial.replace(bundle)
    return bundle


def make(*arguments: str | Path, umask: int = -1) -> subprocess.CompletedProcess[str]:
    """Run the example's make."""
    command = ["make", "--no-print-directory", f"AGENTCTL={_AGENTCTL}"]
    return _run(*command, *arguments, umask=umask)


def compile_program(source: Path, target: Path) -> Path:
    """Compile a program of one file, which needs nothing but Go's own library; the target."""
    done = _run("go", "build", "-o", target, source)
    assert done.returncode == 0, f"cannot compile {source}:\n{done.stderr}"
    return target


def _run(*command: str | Path, umask: int = -1) -> subprocess.CompletedProcess[str]:
    """Run it with Go's cache where all tests share it.

    One at a time: workers that begin together would each compile the standard library.
    """
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    _GO_CACHE.mkdir(parents=True, exist_ok=True)
    with (_GO_CACHE / "one-at-a-time").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(
            command,
            cwd=EXAMPLE,
            env={**environment, "GOCACHE": str(_GO_CACHE)},
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_SECONDS,
        )


@functools.cache
def _build(version: str, style: str) -> Path:
    scratch = _scratch()
    bundle = scratch / style / f"go-service-{version}.zip"
    done = make(
        "bundle",
        f"VERSION={version}",
        f"STYLE={style}",
        f"BUILD={scratch}/build",
        f"OUTPUT={bundle}",
    )
    assert done.returncode == 0, f"cannot build {bundle.name}:\n{done.stdout}{done.stderr}"
    return bundle


@functools.cache
def _scratch() -> Path:
    """This process's own: workers of one session build side by side."""
    path = Path(tempfile.mkdtemp(prefix="deploy-agent-go-service-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _read(bundle: Path, name: str) -> bytes:
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name)


def _changed(name: str, content: bytes, broken: Broken | None) -> bytes:
    if broken in _UNIT_LINES and name == "go-service.service":
        line = f"{_UNIT_LINES[broken]}\n\n[Install]".encode()
        changed = content.replace(b"[Install]", line)
    elif broken is Broken.MIGRATION and name == "migrations/0001_create_orders.sql":
        changed = content + b"-- changed\n"
    else:
        return content
    assert changed != content
    return changed
