"""What all tests share: no blocking call on the loop, scratch folders, tests that need root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from tests import objectstore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root: run `make test` as root to see it")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(needs_root)


@pytest.fixture(autouse=True)
def _no_blocking_call_on_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Rule 31. Looks at calls that come from the agent's code, while a loop runs in that thread."""
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    with blockbuster_ctx("agent"):
        yield


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[objectstore.ObjectStore]:
    """A real S3 server, one for all workers of this run. Its tests are `slow`: 4 s to start it."""
    if not objectstore.is_available():
        pytest.skip(objectstore.MISSING)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "object-store"
    folder.mkdir(exist_ok=True)
    with objectstore.shared_object_store(folder) as store:
        yield store


@pytest.fixture
def bucket(
    object_store: objectstore.ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> objectstore.Bucket:
    """A new bucket; the environment has the credentials of one who may do all."""
    for name, value in objectstore.environment_of(objectstore.ADMIN).items():
        monkeypatch.setenv(name, value)
    return objectstore.make_bucket(object_store)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A scratch folder on a real file system (/tmp may be memory or an overlay), removed after."""
    path = Path(tempfile.mkdtemp(prefix="deploy-agent-test-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)
