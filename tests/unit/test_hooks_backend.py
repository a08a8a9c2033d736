"""How hooks are run, by what the host has and the configuration wants."""

from __future__ import annotations

import logging

import pytest

from agent.hooks import runner, sandbox
from agent.hooks.transient import TransientBackend
from agent.model.errors import AgentError, Code
from agent.model.settings import HookSettings, Sandbox
from agent.system.systemd import Systemd


def test_systemd_comes_first() -> None:
    assert isinstance(runner.choose_backend(HookSettings(), Systemd()), TransientBackend)
    assert not isinstance(runner.choose_backend(HookSettings(), None), TransientBackend)


@pytest.mark.parametrize("wanted", [Sandbox.SYSTEM, Sandbox.STRICT])
def test_a_sandbox_that_cannot_be_had_is_refused(wanted: Sandbox) -> None:
    with pytest.raises(AgentError, match=f"sandbox {wanted}") as caught:
        runner.choose_backend(HookSettings(sandbox=wanted), None)
    assert caught.value.code is Code.CONFIG_INVALID
    assert isinstance(
        runner.choose_backend(HookSettings(sandbox=wanted), Systemd()), TransientBackend
    )


def test_limits_that_cannot_be_had_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        runner.choose_backend(HookSettings(), None)
        assert not caplog.records
        runner.choose_backend(HookSettings(processes_max=5), None)
        assert len(caplog.records) == 1


def test_nothing_is_limited_by_default() -> None:
    assert sandbox.properties(HookSettings(), "/release") == []


def test_limits_and_a_path_with_blanks_in_systemds_words() -> None:
    settings = HookSettings(
        memory_max_bytes=2**30, processes_max=9, cpu_weight=7, sandbox=Sandbox.STRICT
    )
    found = dict(sandbox.properties(settings, '/a b"c'))
    assert (found["MemoryMax"], found["TasksMax"], found["CPUWeight"]) == ("1073741824", "9", "7")
    assert found["ProtectSystem"] == "strict"
    assert found["ReadWritePaths"] == '"/a b\\"c"'
