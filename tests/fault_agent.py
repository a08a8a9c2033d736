"""The real agent with one fault put into its lifecycle table: what a crash test starts.

Usage: python -m tests.fault_agent CONFIG [FAULT], where FAULT is JSON:
{"row": "install", "at": "do-before|do-after|undo-before|undo-after", "how": "fail|hang|kill|wait"}
hang runs into the row's time limit, wait stays until it is aborted.
TEST_LOCK_SECONDS in the environment: the least TTL of its locks in Consul, and their delay, as no
test should wait for the half minute after which they really end. TEST_SLOT_WAIT_SECONDS: for how
long a change waits for a slot.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import signal
import sys
from pathlib import Path

from agent import daemon
from agent.consul import locks
from agent.formats import settings as settings_format
from agent.lifecycle import AFTERWARDS, LIFECYCLE, RECONFIGURE, Do, Row, Undo
from agent.model.errors import AgentError, Code
from agent.steps.context import Context, Result
from agent.upkeep import run_once, slots

HANG_LIMIT_SECONDS = 1.5


async def _strike(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how in ("hang", "wait"):
        await asyncio.Event().wait()
    raise AgentError("cannot go on: this fault was put in", code=Code.INTERNAL)


def _with_fault(row: Row, at: str, how: str) -> Row:
    way, moment = at.split("-")

    async def do(ctx: Context) -> Result | None:
        if moment == "before":
            await _strike(how)
        result = await row.do(ctx)
        if moment == "after":
            await _strike(how)
        return result

    async def undo(ctx: Context) -> None:
        if moment == "before":
            await _strike(how)
        if row.undo is not None:
            await row.undo(ctx)
        if moment == "after":
            await _strike(how)

    new_do: Do = do if way == "do" else row.do
    new_undo: Undo | None = undo if way == "undo" else row.undo
    limit = HANG_LIMIT_SECONDS if how == "hang" else row.limit_seconds
    return dataclasses.replace(row, do=new_do, undo=new_undo, limit_seconds=limit)


def _apply(rows: tuple[Row, ...], faults: list[dict[str, str]]) -> tuple[Row, ...]:
    by_row: dict[str, list[dict[str, str]]] = {}
    for fault in faults:
        by_row.setdefault(fault["row"], []).append(fault)
    changed = []
    for row in rows:
        for fault in by_row.get(row.name, []):
            row = _with_fault(row, fault["at"], fault["how"])
        changed.append(row)
    return tuple(changed)


def _shorten_locks(seconds: float) -> None:
    slots.TTL_SECONDS = slots.AWAY_SECONDS = seconds
    run_once.LEAST_LEASE_SECONDS = locks.DELAY_SECONDS = seconds


def main() -> None:
    """Serve until SIGTERM."""
    if "TEST_LOCK_SECONDS" in os.environ:
        _shorten_locks(float(os.environ["TEST_LOCK_SECONDS"]))
    wait = os.environ.get("TEST_SLOT_WAIT_SECONDS", slots.MOST_WAIT_SECONDS)
    slots.MOST_WAIT_SECONDS = float(wait)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    faults = [json.loads(text) for text in sys.argv[2:]]
    settings = settings_format.load_settings(Path(sys.argv[1]), user_defaults=False)
    rows, afterwards = _apply(LIFECYCLE, faults), _apply(AFTERWARDS, faults)

    async def run() -> None:
        options = daemon.Options(socket=settings.run_dir / "agent.sock")
        changed = _apply(RECONFIGURE, faults)
        await daemon.serve(
            daemon.Daemon(settings, options, rows=rows, afterwards=afterwards, reconfigure=changed)
        )

    try:
        asyncio.run(run())
    except AgentError as error:
        sys.exit(f"{error.message} {error.details} {error.remedy}")


if __name__ == "__main__":
    main()
