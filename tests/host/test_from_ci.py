"""From CI to a host: bundle, push, and a booted host deploys it from S3 by itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.bundles import Web
from tests.host.deb_host import DebHost
from tests.lab import lab
from tests.objectstore import ADMIN, READER, Bucket, environment_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
_RELAY = Path(__file__).resolve().with_name("relay.py")
_SECONDS = 60


class Ci:
    """A build machine: a folder with deploy.yaml and a key, and agentctl."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder = folder
        self.bucket = bucket
        self.agentctl("key", "generate", "--no-password", "--output", "release")
        target = {
            "name": "here",
            "url": f"s3://{bucket.name}/deploy",
            "region": "us-east-1",
            "endpoint": bucket.store.endpoint,
            "path_style": True,
        }
        environment = {"key": "release.key", "expires": "30d", "targets": [target]}
        (folder / "deploy.yaml").write_text(json.dumps({"environments": {"test": environment}}))

    @property
    def public_key(self) -> str:
        return (self.folder / "release.pub").read_text()

    def agentctl(self, *argv: str) -> str:
        program = Path(sys.executable).with_name("agentctl")
        ended = subprocess.run(
            [program, *argv],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{argv}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def push(self, web: Web) -> None:
        """Build a folder, make a bundle of it, and publish it."""
        folder = self.folder / f"web {web.version}"
        with zipfile.ZipFile(io.BytesIO(web.zipped())) as archive:
            for each in archive.infolist():
                path = Path(archive.extract(each, folder))
                path.chmod(each.external_attr >> 16 & 0o777)
        output = f"web-{web.version}.zip"
        self.agentctl(
            "bundle", str(folder), "--version", web.version, "--application", "web",
            "--output", output,
        )  # fmt: skip
        self.agentctl("push", output, "--to", "test")


@pytest.fixture
def ci(tmp_path: Path, bucket: Bucket) -> Ci:
    return Ci(tmp_path, bucket)


@pytest.fixture
def endpoint(own_lab: lab.Lab, bucket: Bucket) -> Iterator[str]:
    """The object store as hosts of the lab reach it."""
    socket = bucket.store.folder / "s3.socket"
    relay = [sys.executable, str(_RELAY), lab.ADDRESS, str(socket)]
    with subprocess.Popen(
        own_lab.namespaces.argv(*relay),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        yield f"http://{lab.ADDRESS}:{int(running.stdout.readline())}"
        running.stdin.close()


def follow(deb_host: DebHost, ci: Ci, endpoint: str) -> None:
    """Let the host trust the key and follow the bucket, with rights to read alone."""
    deb_host.host.write("/etc/deploy-agent/keys.d/release.pub", ci.public_key)
    environment = environment_of(READER)
    lines = [f"{name}={value}\n" for name, value in environment.items()]
    deb_host.host.write("/etc/deploy-agent/aws.env", "".join(lines), mode=0o600)
    drop_in = "/etc/systemd/system/deploy-agent.service.d/aws.conf"
    deb_host.host.write(drop_in, "[Service]\nEnvironmentFile=/etc/deploy-agent/aws.env\n")
    deb_host.host.run("systemctl", "daemon-reload")
    source = {
        "type": "s3",
        "url": f"s3://{ci.bucket.name}/deploy",
        "application": "web",
        "region": "us-east-1",
        "endpoint": endpoint,
        "path_style": True,
        "poll_interval": "1s",
    }
    deb_host.configure("source", json.dumps({"sources": [source]}))


def source(deb_host: DebHost) -> dict[str, Any]:
    found: dict[str, Any] = deb_host.ask("/v1/status")["agent"]["sources"][0]
    return found


def test_push_flip_back_and_a_stranger(
    deb_host: DebHost, ci: Ci, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(ADMIN).items():
        monkeypatch.setenv(name, value)
    ci.push(Web("1.214", by="unit"))
    follow(deb_host, ci, endpoint)
    wait_until(lambda: deb_host.serving() == "1.214", _SECONDS)
    view = deb_host.wait_for_outcome()
    assert (view["outcome"], view["trigger"]) == ("succeeded", "source")
    ci.push(Web("1.215", by="unit"))
    wait_until(lambda: deb_host.serving() == "1.215", _SECONDS)
    assert deb_host.wait_for_outcome()["signed_by"] in ci.public_key
    # back again, by one command
    ci.agentctl("push", "--application", "web", "--version", "1.214", "--to", "test")
    wait_until(lambda: deb_host.serving() == "1.214", _SECONDS)
    assert deb_host.wait_for_outcome()["outcome"] == "succeeded"
    # whoever may write to the bucket but has no key changes nothing
    client = ci.bucket.store.client()
    where = {"Bucket": ci.bucket.name, "Key": "deploy/web/default/release.json"}
    old = client.get_object(**where)["Body"].read()
    client.put_object(**where, Body=old.replace(b'"1.214"', b'"6.66"'))
    wait_until(lambda: source(deb_host)["problem"], _SECONDS)
    assert deb_host.serving() == "1.214"
    client.put_object(**where, Body=old)
    wait_until(lambda: not source(deb_host)["problem"], _SECONDS)
    doctor = deb_host.agentctl("doctor").stdout
    assert "answers the agent: web 1.214 is current, as desired" in doctor
    assert "nothing else" in doctor
