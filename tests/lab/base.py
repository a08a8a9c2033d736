"""Root file systems that the lab's hosts boot: Debian with what our .deb depends on, built once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import commands

ROOT = Path(__file__).resolve().parents[2]
# A real file system that lasts: overlays on it need no copy, and the next run finds the bases.
CACHE = Path("/var/tmp/deploy-agent-lab")
SUITES = ("bookworm", "trixie")
_NOT_THERE = {"bookworm": ("python3-isal",)}

_COMMANDS = ("systemd-nspawn", "mmdebstrap", "journalctl", "nsenter", "unshare", "ip")
# What makes minbase a host: systemd as PID 1, a bus, names for DynamicUser=, a network.
_HOST_DEBS = ("systemd", "systemd-sysv", "dbus", "libnss-systemd", "iproute2", "curl")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BUILD_SECONDS = 900.0
_KEEP_SECONDS = 7 * 24 * 3600.0
# Nothing that wants the outside, and no console to log in at.
_MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
)
# They look for partitions, consoles and kernel options: ten processes for each daemon-reload.
_MASK_GENERATORS = (
    'cd "$1/usr/lib/systemd/system-generators" && for each in *; do '
    'ln -sf /dev/null "$1/etc/systemd/system-generators/$each"; done'
)
# $1 is the new root. Names and ids are each host's own, and the journal is kept on the disk.
_CUSTOMIZE = (
    'rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"',
    ': >"$1/etc/machine-id"',
    'mkdir -p "$1/var/log/journal" "$1/etc/systemd/system-generators"',
    _MASK_GENERATORS,
    *(f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in _MASKED_UNITS),
)


def ensure_base(suite: str) -> Path:
    """The root file system of a suite; the first caller on a machine builds it, others wait."""
    names = (*_HOST_DEBS, *deb_dependencies(suite))
    recipe = "\n".join((suite, *names, *_CUSTOMIZE))
    base = CACHE / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base.with_name(f"{base.name}.used").touch()
        if not base.exists():
            _remove_unused(suite)
            print(f"Building a Debian {suite} to boot, kept in {base}", flush=True)
            partial = base.with_name(f"{base.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _build(suite, partial, names)
            partial.rename(base)
    return base


def missing() -> str:
    """What this machine lacks for real hosts, in words; "" if nothing."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [name for name in _COMMANDS if shutil.which(name) is None]
    return f"needs {', '.join(lacking)}: .ci/debian-packages tests" if lacking else ""


def deb_dependencies(suite: str) -> list[str]:
    """What our .deb depends on or recommends: hosts of the lab have no network to fetch it by.

    apt leaves out what is recommended and not there.
    """
    text = (ROOT / "packaging" / "debian" / "control").read_text()
    fields = re.findall(r"^(?:Depends|Recommends):((?:.*\n)(?:[ \t].*\n)*)", text, re.MULTILINE)
    clauses = [clause.strip() for field in fields for clause in field.split(",")]
    names = [re.split(r"[\s|(:]", clause)[0] for clause in clauses]
    not_there = _NOT_THERE.get(suite, ())
    return [each for each in names if each and each[0] != "$" and each not in not_there]


def _remove_unused(suite: str) -> None:
    """Bases of other recipes that no checkout has booted for a week."""
    for stamp in CACHE.glob(f"{suite}-*.used"):
        if time.time() - stamp.stat().st_mtime > _KEEP_SECONDS:
            shutil.rmtree(stamp.with_suffix(""), ignore_errors=True)
            stamp.unlink()


def _build(suite: str, target: Path, names: tuple[str, ...]) -> None:
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(names)}"]
    argv += [f"--customize-hook={line}" for line in _CUSTOMIZE]
    argv += [suite, str(target)]
    mirror = _mirror()
    if mirror:
        argv.append(f"deb [signed-by={_KEYRING}] {mirror} {suite} main")
    commands.run(argv, seconds=_BUILD_SECONDS)


def _mirror() -> str:
    """The Debian mirror of this machine's own apt; "" on Ubuntu, where mmdebstrap knows one."""
    sites = commands.run(["apt-get", "indextargets", "--format", "$(SITE)"]).stdout.split()
    return next((site for site in sites if site.rstrip("/").endswith("/debian")), "")


def main() -> None:
    """Build what is missing, where this machine can."""
    if missing():
        print(f"no real Debian hosts for the tests: {missing()}")
        return
    with ThreadPoolExecutor() as threads:
        list(threads.map(ensure_base, SUITES))


if __name__ == "__main__":
    main()
