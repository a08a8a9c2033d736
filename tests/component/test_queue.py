"""What the queue keeps: in memory nothing of what has ended, on the disk an abort."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent import queue as queue_module
from agent.daemon import Daemon, Options
from agent.model.deployment import Outcome, Revision, Trigger
from agent.model.settings import Settings
from agent.queue import DeploymentQueue
from tests.waiting import wait_until_async

BAD = Revision(application="web", group="test", version="1", bundle="/nowhere/web-1.zip")


async def test_what_has_ended_is_not_kept(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir / "state", run_dir=state_dir / "run")
    daemon = await asyncio.to_thread(Daemon, settings, Options(settings.run_dir / "sock"))
    queue = DeploymentQueue(daemon._equipment)
    replaced = await queue.request(BAD, Trigger.OPERATOR, by="test")
    aborted = await queue.request(BAD, Trigger.OPERATOR, by="test")
    await queue.abort(aborted.id, by="test", now=False)
    failed = await queue.request(BAD, Trigger.OPERATOR, by="test")
    assert queue._requested == {failed.id}
    running = asyncio.create_task(queue.run())
    await wait_until_async(lambda: not queue._requested)
    queue.stop()
    await running
    outcomes = [
        (await asyncio.to_thread(daemon._state.deployment, each.id)).outcome
        for each in (replaced, aborted, failed)
    ]
    assert outcomes == [Outcome.SUPERSEDED, Outcome.ABORTED, Outcome.FAILED]
    await asyncio.to_thread(daemon._state.close)


def test_abort_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    queue_module._note_abort(tmp_path, "aborted by bob")
    assert queue_module._read_abort(tmp_path) == "aborted by bob"
    assert len(synced) == 2
    assert synced[0].parent == tmp_path
    assert synced[1] == tmp_path
