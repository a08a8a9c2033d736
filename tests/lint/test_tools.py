"""ruff, mypy and shellcheck, run as tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.source import ROOT, files

pytestmark = pytest.mark.timeout(180)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


def shell_scripts() -> list[Path]:
    """Scripts by name, by first line, or as what bash loads."""
    first_line = re.compile(rb"#!\s*\S*(/|/env )(ba|da)?sh\b")
    found = []
    for path in files():
        if path.is_symlink() or path.suffix == ".py":
            continue
        with path.open("rb") as file:
            is_loaded = path.parent.name == "bash-completion"
            if is_loaded or path.suffix == ".sh" or first_line.match(file.read(80)):
                found.append(path)
    return found


def test_ruff_check() -> None:
    _run(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    _run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    _run(sys.executable, "-m", "mypy", "--strict")


def test_shellcheck() -> None:
    scripts = shell_scripts()
    assert ROOT / ".ci/run" in scripts
    _run("shellcheck", "--external-sources", *scripts)
