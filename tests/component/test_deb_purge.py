"""What the purge of the .deb removes, and what it leaves: nothing of ours, all that is not ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lint.source import ROOT

pytestmark = [pytest.mark.root, pytest.mark.timeout(30)]

SCRIPT = ROOT / "packaging/debian/deploy-agent.postrm"
GROUP = "deploy-agent:x:990:"
# a mount namespace in which /etc and /var/lib are folders of the test
PURGE = """
set -e
mount --bind "$1/lib" /var/lib
mount --bind "$1/etc" /etc
mount -t tmpfs none /run
mkdir /run/deploy-agent
cd /
if [ -n "$3" ]; then mount --bind "$1/elsewhere" "/var/lib/deploy-agent/$3"; fi
sh "$2" purge
[ ! -e /run/deploy-agent ]
"""


class Host:
    """The /etc and /var/lib of a host on which deploy-agent was removed."""

    def __init__(self, base: Path, members: str = "") -> None:
        self.base = base
        self.state = base / "lib/deploy-agent"
        self.config = base / "etc/deploy-agent"
        self.work_dir = self.state / "deployments/d-7K3M9QX2P"
        for folder in (self.work_dir / "kept", self.config / "conf.d", base / "elsewhere"):
            folder.mkdir(parents=True)
        for path in (self.state / "state.db", self.config / "conf.d/mine.yaml"):
            path.touch()
        (base / "elsewhere/precious").touch()
        (base / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (base / "etc/group").write_text(f"root:x:0:\n{GROUP}{members}\n")
        (base / "etc/nsswitch.conf").write_text("group: files\npasswd: files\n")

    def purge(self, mount: str = "") -> str:
        """Run the script; what it said. mount: where in the state folder something is mounted."""
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", PURGE, "sh", self.base, SCRIPT, mount],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def groups(self) -> str:
        return (self.base / "etc/group").read_text()


def test_nothing_of_ours_is_left(state_dir: Path) -> None:
    host = Host(state_dir)
    (host.work_dir / "kept/undone-aa").touch()  # what an undo took away, and forgot
    assert host.purge() == ""
    assert not host.state.exists()
    assert not host.config.exists()
    assert host.groups() == "root:x:0:\n"
    assert host.purge() == ""  # and again


def test_what_an_unfinished_deployment_took_away_is_left(state_dir: Path) -> None:
    host = Host(state_dir)
    (host.work_dir / "kept/0123456789abcdef").write_text("an application's only copy\n")
    assert "Install deploy-agent again" in host.purge()
    assert (host.work_dir / "kept/0123456789abcdef").exists()
    assert (host.state / "state.db").exists()


def test_what_is_mounted_in_the_state_folder_is_left(state_dir: Path) -> None:
    host = Host(state_dir)
    assert "mounted below it" in host.purge("deployments")
    assert (host.base / "elsewhere/precious").exists()


def test_a_state_folder_that_is_a_link_is_left_where_it_leads(state_dir: Path) -> None:
    host = Host(state_dir)
    host.state.rename(host.base / "lib/moved")
    host.state.symlink_to("moved")
    host.purge()
    assert not host.state.is_symlink()
    assert (host.base / "lib/moved/state.db").exists()


def test_a_group_with_members_is_left(state_dir: Path) -> None:
    host = Host(state_dir, members="ann")
    assert "ann" in host.purge()
    assert f"{GROUP}ann" in host.groups()
