"""Exit codes of agentctl: part of its interface, documented in docs/cli.md, never renumbered."""

from __future__ import annotations

from enum import IntEnum

from agent.model.errors import AgentError, Code


class Exit(IntEnum):
    """Of every command but `status`; 2, 4 and 7 are LSB's for actions."""

    OK = 0
    FAILED = 1  # failed or rolled_back: the old revision serves
    USAGE = 2
    NOT_PERMITTED = 4
    SUPERSEDED = 5
    ABORTED = 6
    NOT_RUNNING = 7
    INCONSISTENT = 8
    HELD = 9
    TIMEOUT = 10  # of the wait; the deployment goes on
    PARTIAL = 11  # at some targets, and not at others
    INTERRUPTED = 130  # Ctrl-C, as shells count it
    CLOSED_PIPE = 141


class StatusExit(IntEnum):
    """Of `agentctl status`: LSB's codes, and from 150 on, which LSB leaves to applications."""

    OK = 0
    NOT_RUNNING = 3
    UNKNOWN = 4
    DEPLOYING = 150
    DEGRADED = 151
    ROLLED_BACK = 152
    VERSION_MISMATCH = 153
    HELD = 154
    INCONSISTENT = 156


BY_OUTCOME = {
    "succeeded": Exit.OK,
    "failed": Exit.FAILED,
    "rolled_back": Exit.FAILED,
    "superseded": Exit.SUPERSEDED,
    "aborted": Exit.ABORTED,
    "inconsistent": Exit.INCONSISTENT,
}

_BY_CODE = {
    Code.BAD_REQUEST: Exit.USAGE,
    Code.NOT_PERMITTED: Exit.NOT_PERMITTED,
    Code.AGENT_UNREACHABLE: Exit.NOT_RUNNING,
    Code.HELD: Exit.HELD,
}


def for_error(command: str, error: AgentError) -> int:
    """The exit code with which `command` ends on `error`."""
    if command != "status":
        return _BY_CODE.get(error.code, Exit.FAILED)
    if error.code is Code.AGENT_UNREACHABLE:
        return StatusExit.NOT_RUNNING
    return StatusExit.UNKNOWN
