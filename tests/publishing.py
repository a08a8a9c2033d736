"""A team with two AWS accounts that publishes from CI: real agentctl, a real object store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from agent.cli import main
from agent.formats import manifest
from agent.model.manifest import Manifest
from agent.publish import layout
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey
from tests import bundles, objectstore
from tests.objectstore import ObjectStore

ROOT = Path(__file__).resolve().parents[1]
APPLICATION = "go-service"
REGIONS = ("eu", "us", "ap")
ACCOUNTS = (objectstore.ACME, objectstore.PARTNER)
PRODUCTION = tuple(f"{account.name}-{region}" for account in ACCOUNTS for region in REGIONS)
BUCKETS = ("acme-test", *PRODUCTION)
PROMOTE = ("promote", APPLICATION, "--from", "test", "--to", "production")


def ensure_buckets(store: ObjectStore) -> None:
    """Make the buckets of both accounts."""
    client = store.client()
    there = {each["Name"] for each in client.list_buckets()["Buckets"]}
    for name in set(BUCKETS) - there:
        with contextlib.suppress(client.exceptions.BucketAlreadyExists):  # another worker's
            client.create_bucket(Bucket=name)


@dataclass
class Team:
    """A folder with deploy.yaml, keys and bundles; prefix: its own in every bucket.

    environments: what deploy.yaml says; change it and write it anew. keys: by environment.
    """

    store: ObjectStore
    folder: Path
    prefix: str
    environments: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, SecretKey] = field(default_factory=dict)

    def write(self) -> None:
        """Write deploy.yaml."""
        (self.folder / "deploy.yaml").write_text(
            yaml.safe_dump({"environments": self.environments}, sort_keys=False)
        )

    def target(self, environment: str, name: str) -> dict[str, Any]:
        """A target in deploy.yaml, to be changed."""
        targets = self.environments[environment]["targets"]
        found: dict[str, Any] = next(each for each in targets if each["name"] == name)
        return found

    def bundle(self, version: str, **files: str) -> Path:
        """A bundle of this version."""
        described = {"schema": 1, "version": version, "application": APPLICATION}
        content = {"release.json": json.dumps(described), **files}
        return bundles.make_bundle(self.folder, version, files=content)

    def environ(self, **more: str) -> dict[str, str]:
        """What a CI build has: credentials in a file, nothing of AWS or a CI server beside it."""
        ours = ("AWS_", "TEAMCITY", "GITHUB", "DEPLOY_AGENT")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "TMPDIR": str(self.folder),  # who is killed leaves what it had there
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            **more,
        }

    def agentctl(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end in the folder; in this process, which saves half a second."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environ(**more), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main.main(list(args))
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    def ok(self, *args: str) -> dict[str, Any]:
        """Run it with --json; it must end well."""
        done = self.agentctl(*args, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def promote(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Promote from test to production."""
        return self.agentctl(*PROMOTE, *more)

    def start_promote(self) -> subprocess.Popen[str]:
        """The same in a process of its own, which goes on meanwhile."""
        return subprocess.Popen(
            [sys.executable, "-m", "agent.cli.main", *PROMOTE],
            cwd=self.folder, env=self.environ(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    # what lies in the store, seen by AWS's own client

    def read(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        key = f"{self.prefix}/{key}"
        body: bytes = self.store.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write an object, as somebody with rights there could."""
        self.store.client().put_object(Bucket=bucket, Key=f"{self.prefix}/{key}", Body=body)

    def objects(self) -> dict[str, str]:
        """Everything of this team in all buckets: name to ETag."""
        found = {}
        for bucket in BUCKETS:
            answer = self.store.client().list_objects_v2(Bucket=bucket, Prefix=f"{self.prefix}/")
            found |= {
                f"{bucket}/{each['Key']}": each["ETag"] for each in answer.get("Contents", ())
            }
        return found

    def versions(self) -> list[str]:
        """What the hosts of production desire, in the order of PRODUCTION."""
        return [self.desired(each, environment="production").version for each in PRODUCTION]

    def desired(self, bucket: str, *, environment: str, group: str = "default") -> Manifest:
        """What a host there follows, once it has checked the signature as hosts do."""
        text = self.read(bucket, layout.pointer_key(APPLICATION, group))
        secret = self.keys.get(environment)
        if secret is not None:
            signature = self.read(bucket, layout.signature_key(APPLICATION, group, text))
            KeyRing([secret.public]).check(text, signature)
        return manifest.parse_pointer(text)


def make_team(store: ObjectStore, folder: Path) -> Team:
    """Test in one bucket, production in two accounts with three regions each; both sign."""
    # the folders of two workers may have one name
    team = Team(store, folder, f"{folder.name}-{uuid.uuid4().hex[:8]}")
    for name in ("test", "production"):
        team.keys[name] = SecretKey.generate()
        (folder / f"{name}.key").write_bytes(team.keys[name].dump())
    lines = [
        f"[{each.name}]\naws_access_key_id={each.access_key}\naws_secret_access_key={each.secret_key}\n"
        for each in ACCOUNTS
    ]
    (folder / "credentials").write_text("".join(lines))
    team.environments = {
        "test": {
            "key": "test.key",
            "expires": "30d",
            "targets": [_target(team, "acme-test")],
        },
        "production": {
            "key": "production.key",
            "expires": "30d",
            "requires": ["test"],
            "targets": [_target(team, bucket) for bucket in PRODUCTION],
        },
    }
    team.write()
    return team


def _target(team: Team, bucket: str) -> dict[str, Any]:
    return {
        "name": bucket,
        "url": f"s3://{bucket}/{team.prefix}",
        "region": "us-east-1",
        "endpoint": team.store.endpoint,
        "path_style": True,
        "profile": bucket.partition("-")[0],
    }


def closed_port() -> str:
    """Where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
