"""Tells the service manager how the agent is: STATUS= for people, WATCHDOG=1 while it works."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from agent.model.messages import Message
from agent.poller import Poller
from agent.queue import DeploymentQueue
from agent.record import Record
from agent.system import journal
from agent.system.unix_socket import UnixSocket

logger = logging.getLogger(__name__)

_STATUS_SECONDS = 30.0
_STUCK_SECONDS = 300.0


class Heartbeat:
    """Beats from the loop that does the work, and only while the work goes on.

    What a beat proves: the loop turns, a thread is to be had for blocking work, and no source has
    kept a question for five minutes. The last is no reason to stop while a deployment runs: ending
    the agent would undo it, for the sake of a network folder that hangs. How long a step may take
    is not ours to say: each has a limit of its own.
    """

    def __init__(
        self, queue: DeploymentQueue, pollers: Sequence[Poller], server: UnixSocket
    ) -> None:
        self._queue = queue
        self._pollers = pollers
        self._server = server
        self._told = ""
        self._is_stuck = False
        within = journal.watchdog_seconds()
        self._seconds = _STATUS_SECONDS if within is None else min(within / 3, _STATUS_SECONDS)

    async def run(self) -> None:
        """Beat at each change of what runs, and three times within the watchdog's time."""
        while True:
            await self.beat()
            await self._queue.wait_for_change(self._seconds)

    async def beat(self) -> None:
        """Tell what is new; feed the watchdog; be reachable."""
        await self._server.ensure_reachable()  # in a thread: one is to be had
        told = self.sentence()
        if told != self._told:
            self._told = told
            journal.notify(STATUS=told)
        stuck = self._stuck()
        if not stuck:
            journal.notify(WATCHDOG="1")
        elif not self._is_stuck:
            logger.error(
                "%s has not answered for %g s: systemd will start the agent anew",
                ", ".join(str(each.source) for each in stuck),
                _STUCK_SECONDS,
                extra={"fields": {"MESSAGE_ID": Message.AGENT_STUCK}},
            )
        self._is_stuck = bool(stuck)

    def sentence(self) -> str:
        """What the agent does, for the line "Status:" of `systemctl status`."""
        running = self._queue.running
        if running is not None:
            return _doing(running.record)
        decided = "; ".join(each.problem or each.decision for each in self._pollers)
        return f"waiting: {decided}" if decided else "waiting to be asked: agentctl deploy"

    def _stuck(self) -> list[Poller]:
        if self._queue.running is not None:
            return []
        now = time.monotonic()
        return [
            each
            for each in self._pollers
            if each.asking_since is not None and now - each.asking_since > _STUCK_SECONDS
        ]


def _doing(record: Record) -> str:
    """What runs, and since when: a time of day stays true without telling it every second."""
    deployment = record.deployment
    what = f"{deployment.revision.application} {deployment.revision.version}"
    verb = "deploying" if deployment.failure is None else "undoing"
    step = record.steps.get(deployment.step) if deployment.step is not None else None
    if deployment.outcome is not None:
        verb = f"{deployment.outcome.replace('_', ' ')}, tidying up after"
    if step is None:
        return f"{verb} {what}"
    since = time.strftime("%H:%M:%S UTC", time.gmtime(step.started_at))
    return f"{verb} {what}: {step.name}, which began at {since} ({deployment.id})"
