"""What the doctor looks at: the agent's settings on this host, and whether it runs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from agent.formats import settings as settings_format
from agent.model.errors import AgentError
from agent.model.release import Layout
from agent.model.settings import Settings


@dataclass(frozen=True, slots=True)
class Host:
    """settings: the defaults where config_error says why agent.yaml cannot be used.

    is_system: the agent of the host is meant, not one that a user keeps for themselves.
    """

    settings: Settings
    config: Path
    config_error: AgentError | None
    socket: Path
    is_system: bool

    @property
    def is_root(self) -> bool:
        """Whether everything may be looked at."""
        return os.geteuid() == 0

    @property
    def layout(self) -> Layout:
        """Where the agent keeps what."""
        return Layout(self.settings.state_dir)

    def agent_uid(self) -> int:
        """The user that the agent runs as: to whom its state belongs."""
        try:
            return self.settings.state_dir.stat().st_uid
        except OSError:
            return 0 if self.is_system else os.geteuid()

    def agent_pid(self) -> int | None:
        """The agent that uses the state folder, None where none does; 0 for one unknown here.

        Read from proc_locks(5): taking the lock to see, if only for a moment, could keep an agent
        from starting.
        """
        with contextlib.suppress(OSError):
            inode = os.stat(self.settings.state_dir / "lock").st_ino
            for line in Path("/proc/locks").read_text("ascii").splitlines():
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                    return int(fields[4])  # 0: of a process namespace that is not seen from here
        return None


def find_host(config: Path | None, socket: Path | None) -> Host:
    """The agent that is meant: the host's, or a plain user's own where the host has none."""
    try:
        settings = settings_format.load_settings(config, user_defaults=not _is_system(config))
    except AgentError as error:
        return assume_host(config, socket, error)
    return _host(config, socket, settings, None)


def assume_host(config: Path | None, socket: Path | None, error: AgentError) -> Host:
    """The same with the default settings, where an error keeps them from being known."""
    settings = settings_format.default_settings(user_defaults=not _is_system(config))
    return _host(config, socket, settings, error)


def _host(
    config: Path | None, socket: Path | None, settings: Settings, error: AgentError | None
) -> Host:
    is_system = _is_system(config)
    return Host(
        settings=settings,
        config=config or settings_format.default_config_path(user_defaults=not is_system),
        config_error=error,
        socket=socket or settings.run_dir / "agent.sock",
        is_system=is_system,
    )


def _is_system(config: Path | None) -> bool:
    system = settings_format.SYSTEM_CONFIG
    return os.geteuid() == 0 or config == system or (config is None and system.parent.is_dir())
