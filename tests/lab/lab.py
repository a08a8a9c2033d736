"""Real Debian hosts on a network of their own, on this machine and apart from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import base
from tests.lab.hosts import Host
from tests.lab.namespaces import Namespaces

# TEST-NET-1 (RFC 5737): nobody's addresses, on a bridge that leads nowhere.
ADDRESS = "192.0.2.1"
_BRIDGE = "lab0"
_FIRST_HOST = 11


class Lab:
    """A network with hosts on it. Whatever happens to its owner, nothing of it stays behind."""

    def __init__(self) -> None:
        base.CACHE.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="lab-", dir=base.CACHE))
        self.namespaces = Namespaces(self.folder)
        self._count = 0
        run = self.namespaces.run
        run("ip", "link", "add", _BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{ADDRESS}/24", "dev", _BRIDGE)
        run("ip", "link", "set", _BRIDGE, "up")

    def host(self, name: str, *layers: Path) -> Host:
        """A new host, off, whose disk is empty but for these layers, topmost first."""
        number = self._count
        self._count += 1
        folder = self.folder / "disks" / f"{name}-{number}"
        address = f"192.0.2.{_FIRST_HOST + number % 200}/24"
        host = Host(self.namespaces, folder, address)
        host.plug(layers, _BRIDGE)
        return host

    def close(self) -> None:
        """End every host, and remove everything."""
        self.namespaces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
