"""The .deb: installed, upgraded, removed and purged on real hosts, and who may do what then."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from agent import __version__
from tests.host.bundles import Web
from tests.host.conftest import NEWER
from tests.host.deb_host import DebHost
from tests.lab.hosts import Host

pytestmark = pytest.mark.slow

# What dpkg, apt, systemd and the journal keep of anything; and what these tests bring.
_NOT_OURS = (
    "/var/cache/",
    "/var/lib/apt/",
    "/var/lib/dpkg/",
    "/var/log/",
    "/srv/",
    "/var/tmp/systemd-private-",
    "/etc/group-",
    "/etc/gshadow-",
)
_APT = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]


def test_install_starts_it(bare_host: Host, debs: dict[str, Path]) -> None:
    bare_host.install(debs["this"])
    host = DebHost(bare_host)
    host.wait_for_agent()
    assert bare_host.output("systemctl", "is-active", "deploy-agent") == "active"
    assert bare_host.output("systemctl", "is-enabled", "deploy-agent") == "enabled"
    assert bare_host.output("systemctl", "is-system-running") == "running"
    versions = json.loads(bare_host.output("agentctl", "version", "--json"))
    assert versions["version"] == versions["agentctl"] == __version__
    assert host.agentctl("status").returncode == 0


def test_purge_leaves_nothing_of_ours(bare_host: Host, debs: dict[str, Path]) -> None:
    paths, users = _paths(bare_host), _users(bare_host)
    bare_host.install(debs["this"])
    host = DebHost(bare_host)
    host.wait_for_agent()
    host.deploy_good(Web("1"))
    bare_host.run(*_APT, "purge", "deploy-agent")
    assert _users(bare_host) == users
    # what was deployed stays, and serves on
    assert _paths(bare_host) - paths == {
        "/etc/systemd/system/web.service",
        "/etc/systemd/system/multi-user.target.wants/web.service",
        "/opt/web",
        "/opt/web/only-in-1",
        "/opt/web/server",
    }
    assert not paths - _paths(bare_host)
    assert host.serving() == "1"
    assert "deploy-agent" not in bare_host.output("systemctl", "list-units", "--all")


def test_upgrade_keeps_what_was_set_and_deployed(
    serving_host: DebHost, debs: dict[str, Path]
) -> None:
    serving_host.configure("mine", "poll_interval: 7s\n")
    settings = serving_host.host.path("/etc/deploy-agent/agent.yaml")
    settings.write_text(settings.read_text() + "\n# a line of mine\n")
    first = serving_host.agent_pid()
    serving_host.host.install(debs["newer"])
    serving_host.wait_for_agent()
    assert serving_host.agent_pid() != first
    assert serving_host.ask("/v1/version")["version"] == NEWER
    assert settings.read_text().endswith("# a line of mine\n")
    assert serving_host.host.path("/etc/deploy-agent/conf.d/mine.yaml").exists()
    assert serving_host.serving() == "1"
    serving_host.deploy_good(Web("2"))
    assert serving_host.deployment()["previous_version"] == "1"


def test_removed_and_installed_again_it_knows_what_it_deployed(
    serving_host: DebHost, debs: dict[str, Path]
) -> None:
    host = serving_host.host
    host.run(*_APT, "remove", "deploy-agent")
    assert host.run("systemctl", "is-active", "deploy-agent", check=False).returncode != 0
    assert not host.path("/usr/share/deploy-agent").exists()
    assert serving_host.serving() == "1"
    host.install(debs["this"])
    serving_host.wait_for_agent()
    serving_host.deploy_good(Web("2"))
    assert serving_host.deployment()["previous_version"] == "1"


def test_who_may_look_and_who_may_deploy(deb_host: DebHost) -> None:
    deb_host.host.run("useradd", "--groups", "deploy-agent", "member")
    deb_host.host.run("useradd", "plain")
    bundle = deb_host.put_bundle(Web("1"))
    refused = deb_host.agentctl("deploy", bundle, user="plain")
    assert refused.returncode == 4
    assert "deploy-agent" in refused.stderr  # the group that would do
    assert deb_host.serving() == "nothing"
    assert deb_host.agentctl("deploy", bundle, user="member").returncode == 0
    assert deb_host.serving() == "1"
    assert deb_host.deployment()["requested_by"] == "member"
    for user in ("plain", "member"):
        assert deb_host.agentctl("status", user=user).stdout.startswith("web  1")


def test_without_the_daemon_in_the_foreground(deb_host: DebHost) -> None:
    deb_host.host.run("systemctl", "disable", "--now", "deploy-agent")
    good, bad = (deb_host.put_bundle(each) for each in (Web("1"), Web("2", reports="1")))
    assert deb_host.agentctl("deploy", "--foreground", good).returncode == 0
    assert deb_host.serving() == "1"
    undone = deb_host.agentctl("deploy", "--foreground", bad)
    assert undone.returncode == 1
    assert "version-mismatch" in undone.stdout
    assert deb_host.serving() == "1"


def _paths(host: Host) -> set[str]:
    """Every path on its disk that is not listed above."""
    found = host.output("find", "/", "-xdev", "-mindepth", "1").splitlines()
    return {path for path in found if not path.startswith(_NOT_OURS)}


def _users(host: Host) -> str:
    return host.output("cat", "/etc/passwd", "/etc/group")


def test_bundles_are_made_and_deployed(deb_host: DebHost) -> None:
    """With the libraries of this Debian, by a plain user."""
    with zipfile.ZipFile(io.BytesIO(Web("1").zipped())) as archive:
        archive.extractall(deb_host.host.path("/srv/web"))
    deb_host.host.run("chmod", "-R", "a+rx", "/srv/web")
    deb_host.host.run("useradd", "builder")
    deb_host.host.write("/srv/web/.deployignore", "*.log\n")
    deb_host.host.write("/srv/web/x.log", "x")
    done = deb_host.agentctl(
        "bundle", "/srv/web", "--version", "1", "--output", "/tmp/web-1.zip", "--json",
        user="builder",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["left_out"] == [".deployignore", "x.log"]
    assert deb_host.agentctl("deploy", "/tmp/web-1.zip").returncode == 0
    assert deb_host.serving() == "1"
