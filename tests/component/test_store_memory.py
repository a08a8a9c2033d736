"""What goes through a store takes its time, and no memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import objectstore
from tests.lint.source import ROOT
from tests.objectstore import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MIB = 2**20
SIZE = 200 * MIB
MOST_MIB = 75  # measured: 57, of which botocore and aiohttp are 50; the bundle is 200

PROGRAM = """
import asyncio, re, sys
from pathlib import Path
from agent.model.transfer import S3Place
from agent.remote import stores
from agent.system.cancel import Cancel

async def main(url, endpoint, source, target, sha256):
    store = stores.open_s3(S3Place(url, "us-east-1", endpoint, path_style=True))
    ignore = lambda done, total: None
    await store.upload("large", Path(source), sha256=sha256, progress=ignore)
    fetched = await store.download(
        "large", Path(target), limit_bytes=2**30, cancel=Cancel(), progress=ignore
    )
    await store.close()
    status = Path("/proc/self/status").read_text()  # getrusage(2) counts who started it as well
    print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024, fetched.sha256)

asyncio.run(main(*sys.argv[1:]))
"""


def test_200_mib_up_in_parts_and_down(bucket: Bucket, state_dir: Path) -> None:
    block = os.urandom(MIB)
    digest = hashlib.sha256()
    with (state_dir / "source").open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(block)
            digest.update(block)
    place = bucket.place("deploy")
    arguments = [place.url, place.endpoint, state_dir / "source", state_dir / "target"]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, digest.hexdigest()],
        cwd=ROOT,
        env={**os.environ, **objectstore.environment_of(objectstore.ADMIN)},
        check=True,
        capture_output=True,
        text=True,
    )
    most, fetched = found.stdout.split()
    assert fetched == digest.hexdigest()
    assert int(most) < MOST_MIB
