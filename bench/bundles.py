"""The bundles that the benchmark deploys, made here so that every run has the same."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

Members = Iterator[tuple[str, int, bytes]]  # name, mode, content

_HOOKS = ("ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart")
_MTIME = (2026, 1, 2, 3, 4, 6)
_MTIME_SECONDS = 1767323046


def appspec(destination: Path, hooks: tuple[str, ...] = ()) -> bytes:
    """Installs the folder `app` into destination; every hook is scripts/<event>."""
    lines = ["version: 0.0", "os: linux", "files:", "  - source: app"]
    lines += [f"    destination: {destination}"]
    if hooks:
        lines.append("hooks:")
    for event in hooks:
        lines += [f"  {event}:", f"    - location: scripts/{event}", "      timeout: 60"]
    return ("\n".join(lines) + "\n").encode()


def small_service(destination: Path) -> Members:
    """Case a: a 10 MB binary, a unit file, 20 small files, four hooks that do nothing."""
    chance = random.Random(1)
    yield "appspec.yml", 0o644, appspec(destination, _HOOKS)
    yield "app/service", 0o755, chance.randbytes(5 * 2**20) + bytes(5 * 2**20)
    yield "app/service.service", 0o644, b"[Service]\nExecStart=/bin/true\n"
    for number in range(20):
        yield f"app/conf/{number}.conf", 0o644, b"key = value\n" * 20
    for event in _HOOKS:
        yield f"scripts/{event}", 0o755, b"#!/bin/sh\nexit 0\n"


def many_files(destination: Path, *, changed: bool = False, hooks: tuple[str, ...] = ()) -> Members:
    """Cases b and d: 50,000 files of 2.4 KB on average in 1,000 folders; 1 % other if changed.

    Folder by folder, as zip -r and tar write them; what changed is spread over half of them.
    """
    chance = random.Random(2)
    words = [f"word{chance.randrange(4000)}".encode() for _ in range(20_000)]
    yield "appspec.yml", 0o644, appspec(destination, hooks)
    for event in hooks:
        yield f"scripts/{event}", 0o755, b"#!/bin/sh\nexit 1\n"
    for number in range(50_000):
        start = chance.randrange(15_000)
        content = b" ".join(words[start : start + chance.randrange(10, 580)])
        if changed and number % 100 == 0:
            content += b" changed"
        yield f"app/d{number // 50:03}/f{number:05}.txt", 0o644, content


def one_big_file(destination: Path) -> Members:
    """Case c: one file of 1 GB, half of which compresses."""
    chance = random.Random(3)
    piece = b"".join(chance.randbytes(2**16) + bytes(2**16) for _ in range(8 * 64))
    yield "appspec.yml", 0o644, appspec(destination)
    yield "app/big", 0o644, piece * 16


def write_zip(path: Path, members: Members, *, kind: int = zipfile.ZIP_DEFLATED) -> None:
    """As zip(1) would write it; kind: ZIP_STORED for a bundle as big as what is in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name, _MTIME)
            info.external_attr = (0o100000 | mode) << 16
            info.create_system = 3
            info.compress_type = kind
            archive.writestr(info, content, compresslevel=1)


def write_tgz(path: Path, members: Members) -> None:
    """As tar czf would write it."""
    with tarfile.open(path, "w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        for name, mode, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), mode, _MTIME_SECONDS
            archive.addfile(info, io.BytesIO(content))
            archive.members = []
