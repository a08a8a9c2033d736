"""One row's work within its time limit, that abort and shutdown can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent import recovery
from agent.equipment import Equipment
from agent.lifecycle import Row
from agent.model.deployment import StepName
from agent.model.errors import AgentError, Code
from agent.model.messages import Message
from agent.record import Record
from agent.steps.context import Context, Result
from agent.system.cancel import Cancel

logger = logging.getLogger(__name__)

Work = Callable[[Context], Awaitable[Result | None]]


class RowWork:
    """Runs the work of one row after the other; is_undo: an abort is what it carries out.

    pass_name: of the work that runs, or ran last.
    """

    def __init__(self, equipment: Equipment, record: Record) -> None:
        self.abort_reason = ""
        self.is_undo = False
        self.pass_name = ""
        self._equipment = equipment
        self._record = record
        self._cancel = Cancel()
        self._unpacked: set[str] = set()
        self._task: asyncio.Future[Result | None] | None = None

    def abort(self, reason: str, *, now: bool) -> None:
        """Let the work stop at its next safe point; `now`: cut it off."""
        self.abort_reason = self.abort_reason or reason
        self._cancel.set(reason)
        if now and self._task is not None:
            self._task.cancel()

    async def run(self, row: Row, work: Work) -> Result | None:
        """Run one row's work within its time limit; abort and shutdown can end it.

        Raises AgentError for whatever went wrong in it, also for a fault of our own.
        """
        limit = self._equipment.settings.step_timeouts.get(row.name, row.limit_seconds)
        if not self.abort_reason or self.is_undo:
            self._cancel = Cancel()
        self.pass_name = recovery.pass_name(row, is_undo=self.is_undo)
        context = await asyncio.to_thread(self._context, row)
        if not self.is_undo:
            self.check_abort()  # it may have come while there was nothing to cut off
        self._task = asyncio.ensure_future(work(context))
        try:
            done, _ = await asyncio.wait({self._task}, timeout=limit)
            if not done:
                await self._end_task("out of time")
                raise AgentError(
                    f"cannot finish {row.name}: it took longer than {limit:g} s",
                    code=Code.STEP_TIMEOUT,
                    remedy=f"See agentctl logs {self._record.deployment.id}; set a longer limit by"
                    f" timeouts: {{{row.name}: …}} in agent.yaml",
                )
            if self._task.cancelled():
                self.check_abort()
            return self._task.result()
        except asyncio.CancelledError:
            await self._end_task("the agent stops")
            raise
        except AgentError:
            raise
        except Exception as error:
            fields = {**self._record.log.fields, "MESSAGE_ID": Message.INTERNAL_ERROR}
            logger.exception("%s failed", row.name, extra={"fields": fields})
            raise _internal(error, row.name) from error
        finally:
            self._task = None
            self._record.progress = None

    async def _end_task(self, reason: str) -> None:
        if self._task is not None and not self._task.done():
            self._cancel.set(reason)
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # seen; what ended it is reported by the caller

    def check_abort(self) -> None:
        """Raise AgentError when the deployment is to be aborted."""
        if self.abort_reason:
            raise AgentError(
                f"cannot go on with {self._record.deployment.id}: {self.abort_reason}",
                code=Code.ABORTED,
                remedy="Deploy it again with: agentctl retry",
            )

    def _context(self, row: Row) -> Context:
        def progress(done: int, total: int) -> None:
            self._record.progress = (row.name, done, total)

        return self._equipment.context(
            self._record.deployment,
            log=self._record.log,
            cancel=self._cancel,
            progress=progress,
            pass_name=self.pass_name,
            steps={name: step.status for name, step in self._record.steps.items()},
            unpacked=self._unpacked,
        )


def _internal(error: Exception, place: StepName) -> AgentError:
    return AgentError(
        f"cannot finish {place}: internal error {type(error).__name__}: {error}",
        code=Code.INTERNAL,
        remedy="Report this with the traceback: journalctl -u deploy-agent",
    )
