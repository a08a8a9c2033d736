"""Which system this host runs, in the words that manifests use."""

from __future__ import annotations

import os
import platform

# uname(2)'s names that are not Debian's (dpkg-architecture -L).
_DEBIAN = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "i386",
    "armv7l": "armhf",
    "ppc64le": "ppc64el",
}


def read_os_id() -> str:
    """ID-VERSION_ID of os-release(5), such as debian-12; ID where there is no version; else ""."""
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return ""
    return "-".join(filter(None, (found.get("ID", ""), found.get("VERSION_ID", ""))))


def read_arch() -> str:
    """Debian's name of this host's architecture, such as amd64."""
    machine = os.uname().machine
    return _DEBIAN.get(machine, machine)
