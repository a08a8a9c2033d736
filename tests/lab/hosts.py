"""One host: an overlay over a base, a network namespace, and systemd-nspawn booting it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import commands
from tests.lab.namespaces import Namespaces
from tests.waiting import wait_until

BOOT_SECONDS = 60.0
END_SECONDS = 60.0
# systemd-nspawn ends with this when the host reboots itself: with --keep-unit, whoever started it
# is meant to start it again.
_REBOOT_STATUS = 133
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=dumb",
)
# The control group layout of Debian 12 and 13, whatever the machine outside has.
_UNIFIED = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "UNIFIED_CGROUP_HIERARCHY": "1"}
_CGROUP_TREES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
# enter a control group of one's own, in every tree; then become the command
_IN_CGROUPS = 'for each in $0; do echo 0 >"$each/cgroup.procs"; done; exec "$@"'


class Host:
    """A Debian host with systemd as its PID 1. It keeps its disk while it is switched off."""

    def __init__(self, namespaces: Namespaces, folder: Path, address: str) -> None:
        """folder: <lab's folder>/disks/<name>. address: in CIDR notation, on the lab's bridge."""
        self.name = folder.name
        self.address = address.split("/")[0]
        self._namespaces = namespaces
        self._folder = folder
        self._seen = namespaces.path(folder)  # from outside
        self._cidr = address
        self._netns = self.name
        self._link = f"to-{self.name}"
        self._nspawn: subprocess.Popen[bytes] | None = None

    # its parts

    def plug(self, layers: Sequence[Path], bridge: str) -> None:
        """Mount its disk, an overlay over `layers` (topmost first), and connect it to `bridge`."""
        for part in ("upper", "work", "root"):
            (self._seen / part).mkdir(parents=True)
        options = (
            f"lowerdir={':'.join(map(str, layers))},upperdir={self._folder}/upper,"
            # folders of the layers can be renamed, as they can on a real disk
            f"workdir={self._folder}/work,redirect_dir=on,metacopy=off"
        )
        run = self._namespaces.run
        run("mount", "-t", "overlay", "overlay", "-o", options, f"{self._folder}/root")
        run("ip", "netns", "add", self._netns)
        peer = ["type", "veth", "peer", "name", "host0", "netns", self._netns]
        run("ip", "link", "add", self._link, *peer)
        run("ip", "link", "set", self._link, "master", bridge, "up")
        run("ip", "-n", self._netns, "link", "set", "lo", "up")
        run("ip", "-n", self._netns, "addr", "add", self._cidr, "dev", "host0")
        run("ip", "-n", self._netns, "link", "set", "host0", "up")

    def unplug(self) -> Path:
        """Take a host that is off apart; the folder with everything that it wrote to its disk."""
        self._namespaces.run("umount", f"{self._folder}/root")
        self._namespaces.run("ip", "netns", "delete", self._netns)
        return self._folder / "upper"

    def discard(self) -> None:
        """Stop it hard and take it apart; nobody needs it any more."""
        if self.is_on():
            self.cut_power()
        self.unplug()
        shutil.rmtree(self._seen)

    def set_link(self, state: str) -> None:
        """Its network cable: "up" or "down"."""
        self._namespaces.run("ip", "link", "set", self._link, state)

    # on and off

    def boot(self) -> None:
        """Switch it on and wait until systemd has started everything."""
        self._start()
        wait_until(self._is_up, BOOT_SECONDS)

    def power_off(self) -> None:
        """Shut it down cleanly: SIGRTMIN+4 is poweroff.target to systemd(1), with no bus needed."""
        os.kill(self._leader(), signal.SIGRTMIN + 4)
        self.wait_for_end()

    def cut_power(self) -> None:
        """Stop it hard: SIGKILL to its PID 1, and the kernel kills all else on it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader(), signal.SIGKILL)
        self.wait_for_end()

    def reboot(self) -> None:
        """`systemctl reboot`, as a person would type it, and wait until it is up again."""
        self.run("systemctl", "reboot", check=False)
        status = self.wait_for_end()
        assert status == _REBOOT_STATUS, f"{self.name} ended with {status}: {self._console()}"
        self.boot()

    def is_on(self) -> bool:
        """Whether it runs."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def _start(self) -> None:
        lab_name = self._folder.parents[1].name
        trees = [tree for tree in _CGROUP_TREES if Path(tree).is_dir()] or ["/sys/fs/cgroup"]
        # without control groups of its own it would share /payload with every other host
        cgroups = [Path(tree, lab_name, self.name) for tree in trees]
        for cgroup in cgroups:
            cgroup.mkdir(parents=True, exist_ok=True)
        argv = [
            "sh",
            "-c",
            _IN_CGROUPS,
            " ".join(map(str, cgroups)),
            *_nspawn_argv(self._folder, self._netns),
        ]
        with (self._seen / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._namespaces.argv(*argv),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, **_UNIFIED, "SYSTEMD_LOG_LEVEL": "warning"},
                start_new_session=True,
            )

    def _is_up(self) -> bool:
        if not self.is_on():
            raise commands.CommandFailed(f"{self.name} did not boot: {self._console()}")
        with contextlib.suppress(NotBooted):
            # waits inside until the boot is over; it fails for as long as there is no bus
            state = self.run("systemctl", "is-system-running", "--wait", check=False)
            return state.stdout.strip() in ("running", "degraded")
        return False

    def wait_for_end(self) -> int:
        """Wait until it is off, for whatever reason; the exit status of systemd-nspawn."""
        assert self._nspawn is not None
        return self._nspawn.wait(END_SECONDS)

    def _console(self) -> str:
        return (self._seen / "console.log").read_text(errors="replace")[-1000:]

    def _leader(self) -> int:
        """Its PID 1 as the machine sees it: nsenter's grandchild, and 1 in its own namespace."""
        assert self._nspawn is not None
        for nspawn in _children(self._nspawn.pid):
            for child in _children(nspawn):
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{child}/status").read_text()
                    if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                        return child
        raise NotBooted(f"{self.name} has no PID 1: {self._console()}")

    # what one does on it

    def argv(self, *argv: str, user: str = "") -> list[str]:
        """The command that runs `argv` on this host, by default as root."""
        enter = ["nsenter", "--target", str(self._leader())]
        enter += ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        enter += ["--", "env", "-i", *_ENVIRONMENT]
        if user:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            enter.append("--reset-env")
        return [*enter, *argv]

    def run(
        self,
        *argv: str,
        user: str = "",
        check: bool = True,
        seconds: float = 60.0,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end."""
        return commands.run(self.argv(*argv, user=user), check=check, seconds=seconds, stdin=stdin)

    def output(self, *argv: str, user: str = "") -> str:
        """What a command that has to work says, without the last line's end."""
        return self.run(*argv, user=user).stdout.rstrip("\n")

    def popen(self, *argv: str, user: str = "") -> subprocess.Popen[str]:
        """Start a command on it, with pipes."""
        return subprocess.Popen(
            self.argv(*argv, user=user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def path(self, path: str) -> Path:
        """A path of the host, for the test: /proc/<pid>/root reaches its /run and /tmp, too."""
        if self.is_on():
            return Path(f"/proc/{self._leader()}/root{path}")
        return self._seen / "root" / path.lstrip("/")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file on it, with its folders."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def install(self, deb: Path) -> str:
        """Install a .deb as a person would; what apt-get said. The host has no network for more."""
        self.path(f"/srv/{deb.name}").write_bytes(deb.read_bytes())
        apt = ["apt-get", "install", "--quiet", "--yes", f"/srv/{deb.name}"]
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", *apt).stdout

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries of its journal, oldest first; matches are FIELD=value. Also while it is off."""
        if self.is_on():
            self.run("journalctl", "--sync")
        folder = str(self._seen / "root/var/log/journal")
        argv = ["journalctl", "--quiet", "--directory", folder, "--output=json", *matches]
        return [json.loads(line) for line in commands.run(argv).stdout.splitlines()]


def _nspawn_argv(folder: Path, netns: str) -> list[str]:
    host_id = uuid.uuid5(uuid.NAMESPACE_OID, str(folder))
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={folder}/root",
        f"--machine={folder.name}",
        f"--hostname={folder.name}",
        f"--uuid={host_id}",
        f"--network-namespace-path=/run/netns/{netns}",
        "--capability=CAP_NET_ADMIN",
        # the machine's PID 1 may be anything: nspawn asks it for nothing
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        "--boot",
        "--",
        "systemd.log_target=journal",
    ]


class NotBooted(Exception):
    """The host has no PID 1 yet, or not any more."""


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]
