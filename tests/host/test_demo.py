"""`make demo` shows what it promises."""

from __future__ import annotations

import subprocess

import pytest

from tests.lab import base

pytestmark = pytest.mark.slow


def test_demo_on_a_host_of_its_own() -> None:
    demo = base.ROOT / "examples/demo/run"
    done = subprocess.run([demo], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [line.strip() for line in done.stdout.splitlines() if '"version"' in line]
    assert answers == [f'"version": "{version}"' for version in ("1.214", "1.215", "1.215")]
    assert "host# apt-get install" in done.stdout
    assert "1.216 rolled back" in done.stdout
