"""READ FIRST: the lifecycle of a deployment as one ordered table.

Each row names what runs, what undoes it, and what a crash in it means. Runner, recovery, status
and tests are derived from this table. Every do and every undo may run again on half-done work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.model.deployment import StepName
from agent.steps import (
    after_install,
    before_install,
    fetch,
    install,
    plan,
    prune,
    reconfigure,
    report,
    start,
    stop,
    traffic,
    unpack,
    validate,
    verify,
)
from agent.steps.context import Context, Result

Do = Callable[[Context], Awaitable[Result | None]]
Undo = Callable[[Context], Awaitable[None]]


class Crash(StrEnum):
    """What recovery does when the agent died inside a row."""

    RESUME = "resume"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Row:
    """One step. limit_seconds bounds do and undo each; None leaves it to the hooks' timeouts.

    touches: whether the host outside the agent's own folders may change in it; a deployment
    that fails before the first such row ends `failed`, later ones end `rolled_back`.
    """

    name: StepName
    do: Do
    undo: Undo | None
    crash: Crash
    limit_seconds: float | None
    touches: bool = True


MINUTE = 60.0
HOUR = 60 * MINUTE
N = StepName
RESUME, UNDO = Crash.RESUME, Crash.UNDO

# fmt: off
LIFECYCLE: tuple[Row, ...] = (
    Row(N.FETCH,          fetch.do,          None,             RESUME, 2 * HOUR,   touches=False),
    Row(N.VERIFY,         verify.do,         None,             RESUME, HOUR,       touches=False),
    Row(N.UNPACK,         unpack.do,         unpack.undo,      RESUME, HOUR,       touches=False),
    Row(N.PLAN,           plan.do,           None,             RESUME, 10 * MINUTE, touches=False),
    Row(N.BLOCK_TRAFFIC,  traffic.block,     traffic.unblock,  UNDO,   None),
    Row(N.STOP,           stop.do,           stop.undo,        UNDO,   None),
    Row(N.BEFORE_INSTALL, before_install.do, before_install.undo, UNDO, None),
    Row(N.INSTALL,        install.do,        install.undo,     UNDO,   HOUR),
    Row(N.AFTER_INSTALL,  after_install.do,  None,             UNDO,   None),
    Row(N.START,          start.do,          start.undo,       UNDO,   None),
    Row(N.VALIDATE,       validate.do,       None,             RESUME, None),
    Row(N.ALLOW_TRAFFIC,  traffic.allow,     traffic.disallow, UNDO,   None),
)
# fmt: on
"""Up to here everything can be undone. Then the runner commits: current := this revision."""


def _where_it_restarts(
    work: Callable[[Context], Awaitable[Any]],
) -> Callable[[Context], Awaitable[Any]]:
    """Only where a service is restarted for a changed environment."""

    async def run(ctx: Context) -> Any:
        return await work(ctx) if await reconfigure.restarts(ctx) else None

    return run


# fmt: off
RECONFIGURE: tuple[Row, ...] = (
    Row(N.PLAN,           reconfigure.plan,     None,                 RESUME, HOUR, touches=False),
    Row(N.BLOCK_TRAFFIC,  _where_it_restarts(traffic.block),
                          _where_it_restarts(traffic.unblock),        UNDO,   None),
    Row(N.INSTALL,        reconfigure.install,  reconfigure.put_back, UNDO,   None),
    Row(N.START,          reconfigure.tell,     None,                 UNDO,   None),
    Row(N.VALIDATE,       reconfigure.validate, None,                 RESUME, None),
    Row(N.ALLOW_TRAFFIC,  _where_it_restarts(traffic.allow),
                          _where_it_restarts(traffic.disallow),       UNDO,   None),
)
# fmt: on
"""Of the revision that runs, with a changed environment; then the commit, as above."""

# fmt: off
AFTERWARDS: tuple[Row, ...] = (
    Row(N.REPORT,         report.do,         None,             RESUME, MINUTE,     touches=False),
    Row(N.PRUNE,          prune.do,          None,             RESUME, HOUR,       touches=False),
)
# fmt: on
"""Run however the deployment ended; a failure here is recorded and changes no outcome."""
