"""A hook's command that runs once for each version, on one host of the group: hooks/run-once.

Nothing of it is kept here: the lock is a key in Consul that a session holds, the result is a key
beside it, and the command tells itself apart by a word of its own (`holder`). So the agent may be
restarted, and no token leaves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent import named
from agent.consul import locks
from agent.consul.locks import Lock
from agent.equipment import Equipment
from agent.model.consul import KvEntry
from agent.model.deployment import Deployment
from agent.model.errors import AgentError, Code, Conflict, NotFound, NotPermitted
from agent.queue import DeploymentQueue

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

KEYS = {"holder", "lease_seconds", "exit_code", "began", "seconds", "lines"}
LEAST_LEASE_SECONDS = 10.0  # Consul's own least TTL
_MOST_LEASE_SECONDS = 3600.0
_RESULT = "/result"  # below its lock
KEPT_RESULTS = 20  # of one name, the newest ones
_MOST_PRUNED = 50  # at once
_SHOWN_LINES = 20
_SHOWN_CHARACTERS = 200
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one process asks for. folder: of the keys of all versions."""

    consul: Consul
    deployment: Deployment
    folder: str
    holder: str

    @property
    def lock(self) -> str:
        return self.lock_of(self.deployment.revision.version)

    @property
    def result(self) -> str:
        return f"{self.lock}{_RESULT}"

    def lock_of(self, version: str) -> str:
        return f"{self.folder}/{version}"


class RunOnce:
    """Answers the processes of the hook that runs, and nobody else."""

    def __init__(self, equipment: Equipment, queue: DeploymentQueue) -> None:
        self._equipment = equipment
        self._queue = queue

    async def answer(
        self, name: str, action: str, body: Mapping[str, Any], *, pid: int
    ) -> dict[str, Any]:
        """Begin, renew or end; docs/api.md has what is asked and answered. pid: who asks.

        Application, group and version are those of the deployment, whatever the process would
        like. Raises NotPermitted for other processes; Conflict where the lock is lost; AgentError
        for what cannot be understood, and as Consul does.
        """
        running = self._queue.running
        if running is None or not await self._equipment.hooks.has_process(
            running.deployment.id, pid
        ):
            raise NotPermitted(
                f"cannot run {name} once: process {pid} is none of a hook that runs",
                code=Code.NOT_PERMITTED,
                remedy="Call run-once from a hook, in a process that the hook waits for",
            )
        consul = self._equipment.consul
        if consul is None:
            return {"state": "alone"}
        revision = running.deployment.revision
        parts = (revision.application, revision.group or "-", named.check_name(name, "the name"))
        turn = _Turn(
            consul,
            running.deployment,
            consul.key("run-once", *parts),
            named.check_name(body.get("holder"), "holder"),
        )
        if action == "begin":
            lease = min(_number(body, "lease_seconds"), _MOST_LEASE_SECONDS)
            return await _begin(turn, max(lease, LEAST_LEASE_SECONDS))
        if action == "renew":
            return await _renew(turn)
        if action == "end":
            ended = await _end(turn, body)
            await self._prune(turn)
            return ended
        raise named.bad_request(f"{action!r} is none of begin, renew, end")

    async def _prune(self, turn: _Turn) -> None:
        """Remove old results of the same name; what cannot be removed now is old the next time."""
        application, state = turn.deployment.revision.application, self._equipment.state
        with contextlib.suppress(AgentError):
            known = await asyncio.to_thread(
                lambda: (state.current(application), state.previous(application))
            )
            here = [turn.lock, *(turn.lock_of(each.revision.version) for each in known if each)]
            await _prune(turn, here)


async def _begin(turn: _Turn, lease_seconds: float) -> dict[str, Any]:
    """Run it, wait for who does, or take the result."""
    before = await turn.consul.read_kv(turn.result, is_consistent=True)
    if (known := _result_for(turn, before)) is not None:
        return {"state": "done", "result": known}
    held = await turn.consul.read_kv(turn.lock, is_consistent=True)
    if held is not None and held.session:
        holder = locks.parse(held)
        if holder.get("holder") == turn.holder:
            return {"state": "run"}  # asked again, as the answer was lost
        return {"state": "wait", "by": _named(holder)}
    index = before.modify_index if before is not None else 0
    value = _json(turn, began=time.time(), result_index=index)
    name = f"{turn.deployment.revision.application} run-once"
    lock = await locks.take(turn.consul, [turn.lock], value, name=name, ttl_seconds=lease_seconds)
    if lock is None:
        return {"state": "wait", "by": "another host, or the end of one that is away"}
    after = await turn.consul.read_kv(turn.result, is_consistent=True)
    if (after.modify_index if after is not None else 0) != index:
        # it ran between the two questions
        await locks.release(turn.consul, lock)
        return {"state": "wait", "by": "the next question"}
    return {"state": "run"}


def _result_for(turn: _Turn, entry: KvEntry | None) -> dict[str, Any] | None:
    """The recorded result, where it is one for this deployment.

    A failure is for all that were asked for before it: who deploys later tries again.
    """
    if entry is None:
        return None
    known = locks.parse(entry)
    is_success = known.get("exit_code") == 0
    if is_success or known.get("ended", 0.0) >= turn.deployment.created_at:
        return known
    return None


async def _renew(turn: _Turn) -> dict[str, Any]:
    held = await _held(turn)
    try:
        await turn.consul.renew_session(held.session)
    except NotFound as error:
        raise _lost(turn) from error
    return {"state": "run"}


async def _end(turn: _Turn, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record the result and unlock; where exit code 75 asks for another try, unlock only."""
    code = int(_number(body, "exit_code"))
    recorded = await turn.consul.read_kv(turn.result, is_consistent=True)
    if recorded is not None and locks.parse(recorded).get("holder") == turn.holder:
        return {"state": "done"}  # asked again, as the answer was lost
    held = await _held(turn)
    if code != os.EX_TEMPFAIL:
        lines = body.get("lines")
        value = _json(
            turn,
            exit_code=code,
            began=_number(body, "began"),
            ended=time.time(),
            seconds=_number(body, "seconds"),
            lines=[
                str(line)[:_SHOWN_CHARACTERS]
                for line in (lines if isinstance(lines, list) else [])[-_SHOWN_LINES:]
            ],
        )
        # what was recorded since is another host's: this lock was not held all the time
        index = int(locks.parse(held).get("result_index", 0))
        if not await turn.consul.put_kv(turn.result, value, cas=index):
            raise _lost(turn)
    await locks.release(turn.consul, Lock(turn.lock, held.session))
    return {"state": "done"}


async def _prune(turn: _Turn, kept: Collection[str]) -> None:
    """Leave the newest results and those of the kept locks; what changes meanwhile stays, too."""
    entries = {each.key: each for each in await turn.consul.read_entries(turn.folder)}
    results = [each for each in entries.values() if each.key.endswith(_RESULT)]
    results.sort(key=lambda each: each.modify_index, reverse=True)
    for result in results[KEPT_RESULTS : KEPT_RESULTS + _MOST_PRUNED]:
        lock = entries.get(result.key.removesuffix(_RESULT))
        if lock is None or lock.session or lock.key in kept:
            continue
        if await turn.consul.delete_kv(result.key, cas=result.modify_index):
            await turn.consul.delete_kv(lock.key, cas=lock.modify_index)


async def _held(turn: _Turn) -> KvEntry:
    """The lock, where this process has it; raises Conflict."""
    entry = await turn.consul.read_kv(turn.lock, is_consistent=True)
    if entry is None or not entry.session or locks.parse(entry).get("holder") != turn.holder:
        raise _lost(turn)
    return entry


def _lost(turn: _Turn) -> Conflict:
    return Conflict(
        f"cannot keep {turn.lock} in Consul: its session has ended, and another host may have it",
        code=Code.CONFLICT,
        remedy="See whether Consul and this agent were away for longer than --lease",
    )


def _json(turn: _Turn, **more: object) -> bytes:
    whose = {
        "schema": _SCHEMA,
        "host": os.uname().nodename,
        "deployment": turn.deployment.id,
        "holder": turn.holder,
    }
    return json.dumps(whose | more).encode()


def _named(holder: Mapping[str, Any]) -> str:
    return f"{holder.get('host', '?')} ({holder.get('deployment', '?')}), which runs it"


def _number(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise named.bad_request(f"{name} is not a number")
    return float(value)
