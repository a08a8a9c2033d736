"""Reads the systemd journal, through journalctl(1): entries as they come, or the last ones.

Units write to the journal through PID 1 and journald, so nothing of what they say depends on the
agent being alive; whoever needs it here reads it back, from where it was read to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from agent.model.errors import AgentError, Code
from agent.system import process
from agent.system.journal_export import Entry, Parser
from agent.system.process import SEARCH_PATH, Command, Completed

logger = logging.getLogger(__name__)

Take = Callable[[Sequence[Entry]], None]
"""Is given entries in their order, never twice; called in a thread."""

_READ_SECONDS = 60.0
_SYNC_SECONDS = 60.0  # it waits for the disk
_GRACE_SECONDS = 1.0
_ENDLESS_SECONDS = 10 * 365 * 86400.0


class Follower:
    """Gives entries that match to `take` while it runs, in flat memory.

    matches: such as "_SYSTEMD_UNIT=shop.service" (journalctl(1)). after_cursor: only entries after
    this one; "" for all that match. fields: what of an entry is wanted beside its time and cursor.
    cursor: of the last entry taken. problem: why something may be missing, "" while nothing is.
    """

    def __init__(
        self,
        matches: Sequence[str],
        take: Take,
        *,
        after_cursor: str = "",
        fields: Sequence[str] = ("MESSAGE",),
    ) -> None:
        self.cursor = after_cursor
        self.problem = ""
        self._matches = tuple(matches)
        self._fields = tuple(fields)
        self._take = take
        self._following: asyncio.Task[None] | None = None

    def start(self, *, after_seconds: float = 0.0) -> None:
        """Begin to follow; to be called on the event loop.

        after_seconds: what is over by then costs no process that follows, and is read at the end.
        """
        self._following = asyncio.create_task(self._follow(after_seconds))

    async def stop(self) -> None:
        """Follow no more; what was not read yet is left."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    async def finish(self) -> None:
        """Take what was written until now, to the last line, and follow no more."""
        try:
            await sync()
        except AgentError as error:
            self.problem = error.message
        await self.stop()
        try:
            completed = await self._run([], _READ_SECONDS)
        except AgentError as error:
            self.problem = error.message
            return
        if completed.timed_out:
            self.problem = f"reading the rest of it took longer than {_READ_SECONDS:g} s"
        elif completed.exit_code != 0:
            self.problem = f"journalctl: {_said(completed)}"

    async def _follow(self, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        try:
            completed = await self._run(["--follow", "--no-tail"], _ENDLESS_SECONDS)
        except AgentError as error:
            logger.warning("cannot follow the journal: %s; it is read at the end", error.message)
        else:
            said = _said(completed)
            logger.warning("cannot follow the journal: %s; it is read at the end", said)

    async def _run(self, options: Sequence[str], seconds: float) -> Completed:
        """One journalctl from the cursor on."""
        parser = Parser()
        if self.cursor:
            options = [*options, f"--after-cursor={self.cursor}"]

        def output(stream: str, chunk: bytes) -> None:
            if stream == "stdout" and (entries := parser.feed(chunk)):
                self._take(entries)
                self.cursor = entries[-1].cursor

        command = Command(_argv([*options, *self._matches], self._fields), _ENVIRONMENT)
        return await process.run(
            command, timeout_seconds=seconds, grace_seconds=_GRACE_SECONDS, output=output
        )


async def read_last(
    matches: Sequence[str], count: int, *, fields: Sequence[str] = ("MESSAGE",)
) -> list[Entry]:
    """The last `count` entries that match, oldest first; raises AgentError."""
    parser = Parser()
    entries: list[Entry] = []

    def output(stream: str, chunk: bytes) -> None:
        if stream == "stdout":
            entries.extend(parser.feed(chunk))

    completed = await process.run(
        Command(_argv([f"--lines={count}", *matches], fields), _ENVIRONMENT),
        timeout_seconds=_READ_SECONDS,
        grace_seconds=_GRACE_SECONDS,
        output=output,
    )
    if completed.timed_out or completed.exit_code != 0:
        raise AgentError(f"cannot read the journal: {_said(completed)}", code=Code.INTERNAL)
    return entries


async def newest_cursor() -> str:
    """The cursor of the journal's newest entry: where to follow from; "" in an empty journal."""
    entries = await read_last((), 1)
    return entries[-1].cursor if entries else ""


async def sync() -> None:
    """Wait until journald has written all that was sent to it; raises AgentError."""
    answer = await process.capture(["journalctl", "--sync"], timeout_seconds=_SYNC_SECONDS)
    if answer.code != 0:
        raise AgentError(f"cannot sync the journal: {answer.err}", code=Code.INTERNAL)


_ENVIRONMENT = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8"}


def _argv(options: Sequence[str], fields: Sequence[str]) -> tuple[str, ...]:
    wanted = f"--output-fields={','.join(fields)}"
    return ("journalctl", "--quiet", "--no-pager", "--output=export", wanted, *options)


def _said(completed: Completed) -> str:
    """Why it ended: its own words are at the end of what it wrote."""
    lines = completed.tail.decode(errors="replace").strip().splitlines()
    return f"{completed}: {lines[-1]}" if lines else str(completed)
