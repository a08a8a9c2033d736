"""Namespaces of one lab: whatever runs, is mounted or is networked in them ends with the lab."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab import commands

_KEEPER = Path(__file__).resolve().parent / "keep-namespaces"
_END_SECONDS = 60.0


class Namespaces:
    """A mount, a network and a process namespace. `folder` is removed at their end."""

    def __init__(self, folder: Path) -> None:
        self._keeper = subprocess.Popen(
            [str(_KEEPER), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the owner, who then closes the lab
        )
        assert self._keeper.stdout is not None
        first_line = self._keeper.stdout.readline()
        if not first_line:
            self.close()
            raise commands.CommandFailed(f"{_KEEPER.name} could not make namespaces")
        self.pid = int(first_line)

    def argv(self, *argv: str) -> list[str]:
        """The command that runs `argv` in these namespaces."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid"]
        return [*enter, "--", *argv]

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in these namespaces."""
        return commands.run(self.argv(*argv), check=check)

    def path(self, path: Path) -> Path:
        """`path` as it is mounted in these namespaces, for someone outside of them."""
        return Path(f"/proc/{self.pid}/root{path}")

    def close(self) -> None:
        """End everything in them, and them."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(_END_SECONDS)
        self._keeper.stdout.close()
