"""Whose answer it is, on real hosts: a process that has taken the unit's port proves nothing."""

from __future__ import annotations

import pytest

from tests.host.bundles import Hook, Web
from tests.host.deb_host import DebHost

pytestmark = pytest.mark.slow

# Between stop and start a copy of the new program takes the port, as a unit of its own; the unit
# that was to have it runs, and listens nowhere.
_SQUAT = """#!/bin/sh -e
cp /opt/web/server /srv/squatter
systemd-run --quiet --unit=squatter /srv/squatter
rm /opt/web/server
printf '#!/bin/sh\\nexec sleep 600\\n' > /opt/web/server
chmod 755 /opt/web/server
"""
_LEAVE = """#!/bin/sh
systemctl stop squatter || true
"""


def test_a_process_on_the_units_port_is_refused_by_name(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1", by="unit"))
    assert "1  healthy" in deb_host.agentctl("status").stdout
    hooks = {"AfterInstall": Hook(_SQUAT), "ApplicationStop": Hook(_LEAVE)}
    view = deb_host.deploy(Web("2", by="unit", hooks=hooks))
    assert view["outcome"] == "rolled_back"
    failure = view["failure"]
    assert failure["code"] == "status-foreign", failure
    assert "/srv/squatter" in failure["message"]
    assert "not of web.service" in failure["message"]
    assert "ss -ltnp 'sport = :8080'" in failure["next"]
    deb_host.wait_until_serving("1")
    assert "1  healthy" in deb_host.agentctl("status").stdout


def test_status_tells_whose_answer_it_is(deb_host: DebHost) -> None:
    deb_host.deploy_good(Web("1", by="unit"))
    # the unit goes on, without its port: a program that has been replaced by hand
    deb_host.host.run("cp", "/opt/web/server", "/srv/squatter")
    deb_host.host.write("/opt/web/server", "#!/bin/sh\nexec sleep 600\n", mode=0o755)
    deb_host.host.run("systemctl", "restart", "web.service")
    deb_host.host.run("systemd-run", "--quiet", "--unit=squatter", "/srv/squatter")
    deb_host.wait_until_serving("1")
    done = deb_host.agentctl("status")
    assert done.returncode == 151
    assert "not of web.service" in done.stdout
