"""The demo on a throwaway host: Debian 12 boots in a container, gets the .deb, is deployed to.

Where there can be no such host, the demo runs in the foreground of this machine instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.lab import base, commands, lab
from tests.lab.hosts import Host
from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]
_DEMO = "examples/demo"
_PORT = "8080"
_AGENT = "_SYSTEMD_UNIT=deploy-agent.service"
_DEPLOYMENT_SECONDS = 60.0
_CONFIG = "sources:\n  - {type: directory, path: /srv/drop}\n"


def main() -> int:
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    os.chdir(_ROOT)
    try:
        return _on_new_host()
    except NoHost as error:
        say(f"in the foreground here, since there is no booting a host of its own: {error}")
    except KeyboardInterrupt:
        return 130
    return _become_foreground_demo()


def _become_foreground_demo() -> NoReturn:
    os.execv(f"{_DEMO}/in-foreground", ["in-foreground"])


class NoHost(Exception):
    """This machine cannot boot a Debian host; nothing was shown yet."""


def _on_new_host() -> int:
    begun = time.monotonic()
    own, host = _boot()
    with own:
        try:
            Demo(own, host).show()
        except (commands.CommandFailed, TimeoutError) as error:
            said = [str(entry.get("MESSAGE")) for entry in host.journal(_AGENT)[-20:]]
            print(f"\nthe demo failed: {error}\nthe end of the agent's journal:", file=sys.stderr)
            print("\n".join(said), file=sys.stderr)
            return 1
    say(f"1.215 serves again. The host is gone, nothing is left; {time.monotonic() - begun:.0f} s")
    return 0


def _boot() -> tuple[lab.Lab, Host]:
    if base.missing():
        raise NoHost(base.missing())
    say("a Debian 12 with systemd boots in a container on this machine: `host#` is typed there")
    with contextlib.ExitStack() as stack:
        try:
            disk = base.ensure_base("bookworm")
            own = stack.enter_context(lab.Lab())
            host = own.host("demo", disk)
            host.boot()
        except (commands.CommandFailed, TimeoutError, OSError) as error:
            raise NoHost(str(error)) from error
        stack.pop_all()
    return own, host


class Demo:
    """What is typed, and what it says."""

    def __init__(self, own: lab.Lab, host: Host) -> None:
        self._lab = own
        self._host = host
        self._bundles = own.folder

    def show(self) -> None:
        self._install()
        say("version 1.214 arrives in the folder that the agent watches")
        self._drop("1.214")
        self._ask()
        self._on_host("systemctl", "status", "--no-pager", "--lines=0", "go-service")
        self._on_host("agentctl", "status")
        say("1.215 replaces it")
        self._drop("1.215")
        self._ask()
        say("1.216 is broken: it was stamped with the version before")
        self._drop("1.216", "--broken", "version")
        self._on_host("agentctl", "status")
        self._ask()
        self._on_host("agentctl", "history")
        say("what the journal has on it; without -p: every step, hook and unit")
        newest = self._history()[0]["id"]
        self._on_host("journalctl", f"DEPLOYMENT_ID={newest}", "-p", "warning", "-o", "cat")
        serves = json.loads(self._status().stdout)["version"]
        if serves != "1.215":
            raise commands.CommandFailed(f"1.215 should serve again, {serves} does")

    def _install(self) -> None:
        typed("$", "make", "deb")
        built = commands.run(["packaging/build-deb", "--output", str(self._bundles)], seconds=120)
        deb = Path(built.stdout.strip())
        print(f"dist/{deb.name}")
        self._host.path(f"/root/{deb.name}").write_bytes(deb.read_bytes())
        say("a folder as source is all that it has to be told")
        self._host.write("/etc/deploy-agent/conf.d/drop.yaml", _CONFIG)
        self._on_host("cat", "/etc/deploy-agent/conf.d/drop.yaml")
        install = ["apt-get", "install", "-q", "-y", f"./{deb.name}"]
        typed("host#", *install)
        done = self._host.run("env", "-C", "/root", "DEBIAN_FRONTEND=noninteractive", *install)
        for line in done.stdout.splitlines():
            if line.startswith(("Setting up", "Created symlink")):
                print(line)
        self._on_host("systemctl", "is-active", "deploy-agent")

    def _drop(self, version: str, *options: str) -> None:
        """A build arrives: written beside the folder, then renamed into it."""
        name = f"go-service-{version}.zip"
        build = [f"{_DEMO}/build", str(self._bundles / name), version, "--unit"]
        commands.run([*build, "--port", _PORT, *options])
        self._host.path(f"/srv/{name}").write_bytes((self._bundles / name).read_bytes())
        self._host.run("mkdir", "-p", "/srv/drop/go-service")
        self._on_host("mv", f"/srv/{name}", "/srv/drop/go-service/")
        wait_until(lambda: self._has_ended(version), _DEPLOYMENT_SECONDS)

    def _has_ended(self, version: str) -> bool:
        return any(
            each["version"] == version and each["status"] in ("done", "failed")
            for each in self._history()
        )

    def _history(self) -> list[dict[str, Any]]:
        """The deployments of this host, newest first; none while the agent is starting."""
        asked = self._host.run("agentctl", "history", "go-service", "--json", check=False)
        found: list[dict[str, Any]] = json.loads(asked.stdout).get("deployments", [])
        return found

    def _ask(self) -> None:
        """The endpoint, from outside of the host."""
        typed("$", *self._curl())
        print(self._status().stdout, end="")

    def _status(self) -> subprocess.CompletedProcess[str]:
        return self._lab.namespaces.run(*self._curl())

    def _curl(self) -> list[str]:
        return ["curl", "-s", f"http://{self._host.address}:{_PORT}/status"]

    def _on_host(self, *argv: str) -> None:
        """Type a command on the host; a status other than 0 is part of the show."""
        typed("host#", *argv)
        done = self._host.run(*argv, check=False)
        print(done.stdout + done.stderr, end="")


def say(text: str) -> None:
    print(f"\n# {text}")


def typed(prompt: str, *argv: str) -> None:
    print(prompt, shlex.join(argv))


if __name__ == "__main__":
    sys.exit(main())
