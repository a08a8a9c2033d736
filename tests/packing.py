"""A folder as a build leaves it, and bundles made of it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from agent.model.appspec import Problem
from agent.model.errors import AgentError
from agent.publish import bundle

APPSPEC = "version: 0.0\nos: linux\nfiles:\n  - {source: bin/app, destination: /opt/shop}\n"
FILES = {
    "appspec.yml": (APPSPEC, 0o644),
    "bin/app": ("app " * 5000, 0o755),
    "bin/helper.py": ("x = 1\n", 0o600),
    "scripts/start.sh": ("#!/bin/sh\n", 0o775),
    "ümlaut/é ü.txt": ("é", 0o640),
    "nothing": ("", 0o444),
}


def make_folder(root: Path, *, files: dict[str, tuple[str, int]] = FILES) -> Path:
    for name, (content, mode) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
    (root / "empty").mkdir()
    (root / "current").symlink_to("bin/app")
    return root


def build(folder: Path, version: str = "1.214", **more: object) -> bundle.Built:
    """Build beside the folder; with environment variables in capital letters."""
    environ = {key: str(more.pop(key)) for key in list(more) if key.isupper()}
    told: list[Problem] = more.pop("told", [])  # type: ignore[assignment]
    more.setdefault("output", folder.parent / "out.zip")
    request = bundle.Request(folder=folder, version=version, **more)  # type: ignore[arg-type]
    return bundle.build(request, {"PATH": os.environ["PATH"], **environ}, tell=told.append)


def refusal(folder: Path, **more: object) -> AgentError:
    """Why a folder is refused; nothing is left behind."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(AgentError) as caught:
        build(folder, **more)
    assert sorted(folder.parent.rglob("*")) == before
    assert caught.value.remedy
    return caught.value


def packed(built: bundle.Built) -> list[str]:
    with zipfile.ZipFile(built.path) as archive:
        return archive.namelist()
