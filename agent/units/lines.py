"""What units write to the journal while they are started and watched, in the deployment's log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.model.errors import AgentError
from agent.system import deployment_log, journal_reader
from agent.system.deployment_log import DeploymentLog
from agent.system.journal_export import Entry

_LIMIT_BYTES = 2**20  # of one unit, in one step
_SHOWN_LINES = 10
_SHOWN_CHARACTERS = 400
_EXIT_KINDS = {"exited": 1, "killed": 2, "dumped": 3}  # si_code of waitid(2)
_FIELDS = ("MESSAGE", "UNIT", "_SYSTEMD_UNIT")


class UnitLines:
    """Follows the journal of some units from a cursor on. "" as cursor: from now on.

    cursor: how far it came, after finish().
    """

    def __init__(self, log: DeploymentLog, units: Iterable[str], cursor: str) -> None:
        self.cursor = cursor
        self._outputs = {
            unit: log.hook("unit", unit, limit_bytes=_LIMIT_BYTES) for unit in dict.fromkeys(units)
        }
        self._log = log
        self._follower: journal_reader.Follower | None = None

    async def start(self) -> None:
        """Begin to follow. A journal that cannot be read fails nothing."""
        try:
            self.cursor = self.cursor or await journal_reader.newest_cursor()
        except AgentError as error:
            self._log.line(f"warning: {error.message}: what the units say is not shown here")
            return
        self._follower = journal_reader.Follower(
            _matches(self._outputs), self._take, after_cursor=self.cursor, fields=_FIELDS
        )
        self._follower.start()

    async def finish(self) -> None:
        """Take what the units wrote until now, and follow no more. May be called again."""
        follower, self._follower = self._follower, None
        if follower is None:
            return
        await follower.finish()
        self.cursor = follower.cursor
        for output in self._outputs.values():
            await asyncio.to_thread(output.close)
        if follower.problem:
            self._log.line(f"warning: what the units say may be incomplete: {follower.problem}")

    def _take(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            by_itself = _text(entry, "_SYSTEMD_UNIT")
            unit = by_itself if by_itself in self._outputs else _text(entry, "UNIT")
            if unit in self._outputs:
                self._outputs[unit].write_lines([(entry.seconds, entry.message)])


@dataclass(frozen=True, slots=True)
class Written:
    """The last of what a unit wrote, and how its last process ended: see UnitState."""

    texts: tuple[str, ...] = ()
    exit_kind: int = 0
    exit_status: int = 0


async def read_last(unit: str, since: float) -> Written:
    """What a unit wrote, and what systemd said of it; nothing where there is no journal.

    since: in seconds since the epoch.
    """
    matches = (f"--since=@{since:.3f}", *_matches([unit]))
    try:
        await journal_reader.sync()
        entries = await journal_reader.read_last(
            matches, _SHOWN_LINES, fields=(*_FIELDS, "EXIT_CODE", "EXIT_STATUS")
        )
    except AgentError as error:
        return Written((error.message,))
    found = (deployment_log.plain(entry.text)[:_SHOWN_CHARACTERS] for entry in entries)
    texts = tuple(line for line in found if line.strip())
    for entry in reversed(entries):
        status = _text(entry, "EXIT_STATUS")
        if status.isdigit():
            return Written(texts, _EXIT_KINDS.get(_text(entry, "EXIT_CODE"), 0), int(status))
    return Written(texts)


def _matches(units: Iterable[str]) -> tuple[str, ...]:
    """Of each unit: what its processes wrote, and what systemd says of it (as journalctl -u does).

    Not all of the latter is from PID 1: what fails before the program runs is told by a child.
    """
    matches: list[str] = []
    for unit in units:
        matches += ["+"] * bool(matches)
        matches += [f"_SYSTEMD_UNIT={unit}", "+", f"UNIT={unit}", "_UID=0", "_TRANSPORT=journal"]
    return tuple(matches)


def _text(entry: Entry, field: str) -> str:
    return entry.fields.get(field, b"").decode(errors="replace")
