"""The lab keeps its own promises: real systemd, hosts that go down and come back, no remains."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tests.lab import base, lab
from tests.lab.hosts import Host
from tests.waiting import wait_until

# Boots a host, says where it is, and waits to be killed.
_OWNER = """
import sys
from tests.lab import base, lab
own = lab.Lab()
host = own.host("left", base.ensure_base(sys.argv[1]))
host.boot()
print(own.folder, own.namespaces.pid, flush=True)
sys.stdin.read()
"""


def test_host_is_debian_with_systemd(bare_host: Host, suite: str) -> None:
    assert f"VERSION_CODENAME={suite}" in bare_host.path("/etc/os-release").read_text()
    assert bare_host.output("cat", "/proc/1/comm") == "systemd"
    assert bare_host.output("systemctl", "is-system-running") == "running"
    assert bare_host.output("id", "-un", user="www-data") == "www-data"


def test_disk_outlives_reboot_and_power_cut(bare_host: Host) -> None:
    bare_host.write("/srv/kept", "x")
    bare_host.write("/run/lost", "x")
    machine_id = bare_host.output("cat", "/etc/machine-id")
    boot_ids = [_boot_id(bare_host)]
    bare_host.reboot()
    boot_ids.append(_boot_id(bare_host))
    bare_host.cut_power()
    bare_host.boot()
    boot_ids.append(_boot_id(bare_host))
    assert bare_host.path("/srv/kept").read_text() == "x"
    assert not bare_host.path("/run/lost").exists()
    assert len(set(boot_ids)) == 3
    assert bare_host.output("cat", "/etc/machine-id") == machine_id


def _boot_id(host: Host) -> str:
    return host.output("cat", "/proc/sys/kernel/random/boot_id")


def test_journal_is_read_from_outside_also_of_a_dead_host(bare_host: Host) -> None:
    bare_host.run("systemd-run", "--wait", "--unit=says", "echo", "last words")
    bare_host.run("journalctl", "--sync")
    bare_host.cut_power()
    entries = bare_host.journal("_SYSTEMD_UNIT=says.service")
    assert [entry["MESSAGE"] for entry in entries] == ["last words"]


def test_hosts_reach_each_other_and_nothing_else(own_lab: lab.Lab, bare_host: Host) -> None:
    listen = ["python3", "-m", "http.server", "--bind", bare_host.address, "80"]
    bare_host.run("systemd-run", "--unit=web", *listen)
    url = f"http://{bare_host.address}/"
    other = own_lab.host("other", base.ensure_base("bookworm"))
    other.boot()
    ask = ["curl", "--silent", "--max-time", "1", "--output", "/dev/null", url]
    wait_until(lambda: other.run(*ask, check=False).returncode == 0)
    assert own_lab.namespaces.run(*ask, check=False).returncode == 0
    bare_host.set_link("down")
    assert other.run(*ask, check=False).returncode != 0
    assert "default" not in other.output("ip", "route")
    other.discard()


def test_owner_that_is_killed_leaves_nothing_behind() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, "bookworm"],
        cwd=base.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    folder, keeper = owner.stdout.readline().split()
    assert _processes_in_cgroup(Path(folder).name)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: not Path(folder).exists(), 20.0)
    assert not _processes_in_cgroup(Path(folder).name)
    assert not psutil.pid_exists(int(keeper))
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{Path(folder).name}"))
    assert folder not in Path("/proc/mounts").read_text()


def _processes_in_cgroup(name: str) -> list[int]:
    """Processes in the control groups of a lab: everything that runs on its hosts."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if f"/{name}/" in Path(f"/proc/{process.pid}/cgroup").read_text():
                found.append(process.pid)
    return found
