"""A root shell on a fresh host with our .deb: python -m tests.lab [bookworm|trixie] [COMMAND…].

The host is gone when the shell ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.lab import base, commands, lab


def main() -> int:
    """Boot, install, hand over."""
    suite, *command = sys.argv[1:] or ["bookworm"]
    if suite not in base.SUITES or base.missing():
        print(f"{__doc__}\n{base.missing()}", file=sys.stderr)
        return 2
    with lab.Lab() as own:
        built = commands.run([str(base.ROOT / "packaging/build-deb"), "--output", str(own.folder)])
        host = own.host(suite, base.ensure_base(suite))
        host.boot()
        host.install(Path(built.stdout.strip()))
        argv = host.argv(*command or ["env", "TERM=xterm", "bash", "--login"])
        return subprocess.run(argv, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
