"""Commands of the lab: run with a time limit, and shown whole where they fail."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence


class CommandFailed(Exception):
    """A command that had to work did not. Its text has the command and everything it said."""


def run(
    argv: Sequence[str], *, check: bool = True, seconds: float = 60.0, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; standard output and error are kept apart."""
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, **source)
    if check and done.returncode != 0:
        said = f"{done.stdout}{done.stderr}".strip()
        raise CommandFailed(f"{shlex.join(argv)}\nexit status {done.returncode}\n{said}")
    return done
