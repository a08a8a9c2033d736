"""A clock that is set back leaves bundles of the future: they are desired all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.model.settings import Settings, SourceSettings, SourceType
from agent.sources.directory import DirectorySource
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys


async def versions(source: DirectorySource) -> list[str]:
    return [each.version for each in await source.desired()]


async def test_clock_that_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "web-1.zip").write_bytes(b"x")
    settings = SourceSettings(
        type=SourceType.DIRECTORY, path=str(folder), application="web", group="test"
    )
    source = DirectorySource(
        settings, Keys(tmp_path / "keys"), HostGroup(Settings(tmp_path, tmp_path))
    )
    true_time, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: true_time() + offset)
    assert await versions(source) == []  # it was changed just now
    offset = 10.0
    assert await versions(source) == ["1"]
    assert not caplog.records
    offset = -3600.0
    assert await versions(source) == ["1"]
    assert await versions(source) == ["1"]
    (told,) = caplog.records
    assert "web-1.zip" in told.message
    (folder / "web-2.zip").write_bytes(b"x")
    assert await versions(source) == ["2"]
    offset = 10.0
    assert await versions(source) == ["2"]
    await source.close()
