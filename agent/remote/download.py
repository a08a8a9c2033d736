"""One object to a file: streamed, hashed on the way, and gone on with where it broke off."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import AgentError, Code, TransientError
from agent.model.transfer import Fetched, Patience
from agent.remote.attempts import Attempts
from agent.remote.partial import PartialFile
from agent.remote.web import Stream
from agent.system import threads
from agent.system.cancel import Cancel

Progress = Callable[[int, int], None]
# (first byte, validator): the answer, with a status of 200, 206, 412 or 416; raises AgentError
Opener = Callable[[int, str], Awaitable[Stream]]

_BATCH_BYTES = 2**18
_GAIN_BYTES = 2**20  # by this much further than ever: the attempts count anew
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be downloaded. size: 0 where it is not known. name: with its version, for us."""

    name: str
    target: Path
    size: int
    limit_bytes: int


async def download(
    open_at: Opener,
    wanted: Wanted,
    patience: Patience,
    *,
    cancel: Cancel,
    progress: Progress,
) -> Fetched:
    """Bring it to wanted.target; what an earlier attempt, or run, left there is gone on with.

    Only after the same object's bytes: its validator (RFC 9110, 8.8) is kept with the file.
    On an error the file stays, to be gone on with. Raises AgentError, Interrupted by cancel.
    """
    part = await threads.run_blocking(cancel, PartialFile, wanted.target, cancel)
    try:
        await threads.run_blocking(cancel, part.take_up)
        transfer = _Transfer(open_at, wanted, patience, part, progress)
        return await threads.stop_with(cancel, transfer.run())
    finally:
        part.close()


class _Transfer:
    def __init__(
        self,
        open_at: Opener,
        wanted: Wanted,
        patience: Patience,
        part: PartialFile,
        progress: Progress,
    ) -> None:
        self._open_at = open_at
        self._wanted = wanted
        self._patience = patience
        self._part = part
        self._progress = progress
        self._total = wanted.size
        self._furthest = part.size

    async def run(self) -> Fetched:
        attempts = Attempts(self._patience)
        while True:
            try:
                await self._attempt()
                return Fetched(await asyncio.to_thread(self._part.finish), self._part.size)
            except TransientError as error:
                if self._part.size >= self._furthest + _GAIN_BYTES:
                    self._furthest = self._part.size
                    attempts.begin_anew()
                await attempts.pause(error)

    async def _attempt(self) -> None:
        """One request for what is missing; raises TransientError where some still is."""
        part, wanted = self._part, self._wanted
        start, validator = self._where_to_begin()
        if start and start == wanted.size:
            return
        async with await self._open_at(start, validator) as stream:
            if stream.status == 416 and _total_of(stream) == start:
                return  # nothing is missing: the size was not known
            if stream.status in (412, 416) or not self._continues(stream, start, validator):
                await asyncio.to_thread(part.start_anew, "")
                raise TransientError(
                    f"cannot {stream.doing}: it was changed during the download",
                    code=Code.SOURCE_UNAVAILABLE,
                )
            self._total = _total_of(stream)
            self._check_size(stream, self._total)
            if stream.status == 200:
                origin = json.dumps([wanted.name, _validator_of(stream)])
                await asyncio.to_thread(part.start_anew, origin)
            await self._take(stream)
            missing = (self._total or wanted.size) - part.size
            if missing > 0:
                raise TransientError(
                    f"cannot {stream.doing}: it ended {missing} bytes early",
                    code=Code.SOURCE_UNAVAILABLE,
                )
            if not self._total:
                self._check_size(stream, part.size)

    def _where_to_begin(self) -> tuple[int, str]:
        """The first missing byte, and what the ones before it are of; 0 and "" for all of it."""
        part = self._part
        name, validator = json.loads(part.origin) if part.origin else ("", "")
        is_usable = name == self._wanted.name and validator
        too_long = 0 < self._wanted.size < part.size
        return (part.size, validator) if is_usable and part.size and not too_long else (0, "")

    def _continues(self, stream: Stream, start: int, validator: str) -> bool:
        """Whether what comes belongs behind what is here. A 200 is all of it, from the start."""
        if stream.status == 200:
            return True
        found = _RANGE.fullmatch(stream.headers.get("Content-Range", ""))
        begins_here = found is not None and found[1] == str(start)
        return begins_here and start > 0 and _validator_of(stream) in ("", validator)

    def _check_size(self, stream: Stream, size: int) -> None:
        wanted = self._wanted
        if size > wanted.limit_bytes:
            raise AgentError(
                f"cannot {stream.doing}: it has {size} bytes, and {wanted.limit_bytes} are allowed",
                code=Code.BUNDLE_REFUSED,
                remedy="Make the bundle smaller, or raise limits.bundle in agent.yaml",
            )
        if wanted.size and size and size != wanted.size:
            raise AgentError(
                f"cannot {stream.doing}: it has {size} bytes, and should have {wanted.size}",
                code=Code.BUNDLE_DAMAGED,
                remedy="Publish the bundle again: what lies there is another one",
            )

    async def _take(self, stream: Stream) -> None:
        """The body into the file, a batch being written while the next one comes."""
        writer = _Writer(self._part, lambda size: self._progress(size, self._total))
        speed = _Speed(self._patience, stream.doing)
        batch: list[bytes] = []
        size, batch_size = self._part.size, 0
        try:
            try:
                async for piece in stream.pieces():
                    batch.append(piece)
                    size, batch_size = size + len(piece), batch_size + len(piece)
                    self._check_size(stream, size if size > self._wanted.limit_bytes else 0)
                    speed.count(len(piece))
                    if batch_size >= _BATCH_BYTES:
                        await writer.write(batch)
                        batch, batch_size = [], 0
            except TransientError:
                await writer.write(batch)  # what came is not asked for again
                await writer.settle()
                raise
            await writer.write(batch)
            await writer.settle()
        finally:
            await writer.outlast()


class _Writer:
    """Hashes and writes in a thread, one batch at a time."""

    def __init__(self, part: PartialFile, written: Callable[[int], None]) -> None:
        self._part = part
        self._written = written
        self._pending: asyncio.Future[None] | None = None

    async def write(self, batch: list[bytes]) -> None:
        """Begin to write it, once the one before is written."""
        await self.settle()
        self._pending = asyncio.ensure_future(asyncio.to_thread(self._part.append, batch))

    async def settle(self) -> None:
        """Wait for what is being written; raises AgentError."""
        if self._pending is not None:
            await asyncio.shield(self._pending)
            self._pending = None
            self._written(self._part.size)

    async def outlast(self) -> None:
        """Wait for it, also while being cancelled: the file is not closed under the thread."""
        if self._pending is not None:
            await threads.outlast(self._pending)


class _Speed:
    """Notices a body that keeps coming, and never arrives."""

    def __init__(self, patience: Patience, doing: str) -> None:
        self._patience = patience
        self._doing = doing
        self._since = time.monotonic()
        self._bytes = 0

    def count(self, size: int) -> None:
        """Raise TransientError where too few came in a window of slow_seconds."""
        self._bytes += size
        now = time.monotonic()
        if now < self._since + self._patience.slow_seconds:
            return
        if self._bytes < self._patience.slow_bytes:
            raise TransientError(
                f"cannot {self._doing}: too slow, {self._bytes} bytes in {now - self._since:.0f} s",
                code=Code.SOURCE_UNAVAILABLE,
            )
        self._since, self._bytes = now, 0


def _total_of(stream: Stream) -> int:
    """The size of the whole object, 0 where the answer does not tell."""
    if stream.status == 200:
        return int(stream.headers.get("Content-Length", "0"))
    found = _RANGE.fullmatch(stream.headers.get("Content-Range", ""))
    return int(found[2]) if found and found[2] != "*" else 0


def _validator_of(stream: Stream) -> str:
    """Its strong ETag, else its date of change; only such ones may name a range (RFC 9110, 13.1.5).

    A weak ETag ("W/…") says that it is much the same; that is not enough.
    """
    etag = stream.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return stream.headers.get("Last-Modified", "")
