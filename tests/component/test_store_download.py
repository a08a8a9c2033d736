"""A download is resumed, bounded and noticed to be broken, whatever the server does."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import hashlib
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Code, Interrupted, NotFound, TransientError
from agent.remote import stores
from agent.system.cancel import Cancel
from tests.transfers import HASTY, fetch
from tests.waiting import wait_until_async
from tests.web_server import Request, WebServer, answer, file_answer, web_server

BODY = random.Random(7).randbytes(3 * 2**20)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server(lambda request: file_answer(request, BODY)) as server:
        yield server


@pytest.fixture
async def store(server: WebServer) -> AsyncIterator[stores.Store]:
    store = stores.open_http(server.url, patience=HASTY)
    yield store
    await store.close()


@pytest.fixture
def small_disk(state_dir: Path) -> Iterator[Path]:
    disk = state_dir / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def cut(whole: bytes, at: int) -> bytes:
    """An answer that ends early, after so many bytes of its body."""
    return whole[: whole.index(b"\r\n\r\n") + 4 + at]


def size_of(path: Path) -> int:
    return path.stat().st_size


def starts(server: WebServer) -> list[int]:
    return [request.start for request in server.requests]


async def test_arrives_whole(store: stores.Store, state_dir: Path) -> None:
    fetched = await fetch(store, "a/b.zip", state_dir / "b", size=len(BODY))
    assert (fetched.sha256, fetched.size) == (DIGEST, len(BODY))
    assert (state_dir / "b").read_bytes() == BODY
    assert os.listxattr(state_dir / "b") == []


async def test_goes_on_after_a_broken_connection(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    """However often it breaks, if something came each time; aiohttp drops what is not yet read."""
    large = BODY * 4
    server.answering = lambda request: cut(file_answer(request, large), 2**21)
    fetched = await fetch(store, "b", state_dir / "b")
    assert fetched.sha256 == hashlib.sha256(large).hexdigest()
    assert len(server.requests) > HASTY.attempts
    assert starts(server) == sorted(set(starts(server)))
    assert all("if-range" in each.headers for each in server.requests[1:])


async def leave_a_part(server: WebServer, target: Path) -> int:
    """What a run leaves that was cut off, and its size."""
    before = server.answering
    server.answering = lambda request: cut(file_answer(request, BODY), 2**21)
    once = stores.open_http(server.url, patience=dataclasses.replace(HASTY, attempts=1))
    with pytest.raises(TransientError, match="cut off"):
        await fetch(once, "b", target)
    await once.close()
    server.answering = before
    server.requests.clear()
    return size_of(target)


def complete(target: Path, size: int) -> None:
    with target.open("ab") as file:
        file.write(BODY[size:])


async def test_goes_on_after_a_restart(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    size = await leave_a_part(server, state_dir / "b")
    assert size > 0
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert starts(server) == [size]


async def test_a_complete_file_is_not_asked_for_again(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    complete(state_dir / "b", await leave_a_part(server, state_dir / "b"))
    assert (await fetch(store, "b", state_dir / "b", size=len(BODY))).sha256 == DIGEST
    assert server.requests == []


async def test_a_complete_file_of_unknown_size(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    """The server answers 416: there is nothing behind it."""
    complete(state_dir / "b", await leave_a_part(server, state_dir / "b"))
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert starts(server) == [len(BODY)]


@pytest.mark.parametrize("status", ["200", "206", "412", "416"])
async def test_a_changed_object_starts_anew(
    server: WebServer, store: stores.Store, state_dir: Path, status: str
) -> None:
    """However a server says so, also one that breaks the rules (206)."""
    await leave_a_part(server, state_dir / "b")
    other = BODY[::-1]

    def answering(request: Request) -> bytes:
        if not request.start or status == "200":
            return answer(200, other, etag='"other"')
        content_range = f"bytes {request.start}-{len(other) - 1}/{len(other)}"
        if status == "206":
            body = other[request.start :]
            return answer(206, body, etag='"other"', content_range=content_range)
        return answer(int(status), content_range=f"bytes */{2**19}")

    server.answering = answering
    fetched = await fetch(store, "b", state_dir / "b")
    assert fetched.sha256 == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("kept", ["other URL", "no origin", "longer"])
async def test_other_bytes_are_not_gone_on_with(
    server: WebServer, store: stores.Store, state_dir: Path, kept: str
) -> None:
    target = state_dir / "b"
    await leave_a_part(server, target)
    if kept == "no origin":
        target.unlink()
        target.write_bytes(b"x" * 1000)
    elif kept == "longer":
        with target.open("ab") as file:
            file.write(BODY)
    key = "c" if kept == "other URL" else "b"
    assert (await fetch(store, key, target, size=len(BODY))).sha256 == DIGEST
    assert starts(server) == [0]


async def test_a_server_without_ranges(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    breaks = iter([2**20])

    def answering(request: Request) -> bytes:
        whole = answer(200, BODY, last_modified=formatdate(usegmt=True))
        at = next(breaks, None)
        return whole if at is None else cut(whole, at)

    server.answering = answering
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert starts(server)[0] < starts(server)[1]


async def test_without_a_validator_nothing_is_gone_on_with(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    breaks = iter([2**20])

    def answering(request: Request) -> bytes:
        whole = answer(200, BODY, etag='W/"weak"')
        at = next(breaks, None)
        return whole if at is None else cut(whole, at)

    server.answering = answering
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert starts(server) == [0, 0]


async def test_truncated_each_time(server: WebServer, store: stores.Store, state_dir: Path) -> None:
    server.answering = lambda _: answer(200, BODY[:1000], etag='"e"', content_length=2000)
    with pytest.raises(TransientError, match="the answer was cut off") as caught:
        await fetch(store, "b", state_dir / "b")
    assert len(server.requests) == HASTY.attempts
    assert caught.value.details == ("tried 3 times",)


async def test_truncated_without_a_length(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    """The connection's end is the body's; only the manifest's size tells."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    server.answering = lambda _: head + BODY[:1000]
    with pytest.raises(TransientError, match="ended 1000 bytes early"):
        await fetch(store, "b", state_dir / "b", size=2000)


async def test_a_body_that_stalls(server: WebServer, store: stores.Store, state_dir: Path) -> None:
    stalls = iter([True])

    def answering(request: Request) -> Iterator[bytes]:
        whole = file_answer(request, BODY)
        if next(stalls, False):
            yield cut(whole, 2**20)
            yield from server.stall()
        yield whole

    server.answering = answering
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert starts(server)[0] < starts(server)[1]


@pytest.mark.slow
async def test_a_server_that_never_answers(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    server.answering = lambda _: server.stall()
    with pytest.raises(TransientError, match="nothing came for"):
        await fetch(store, "b", state_dir / "b")


@pytest.mark.slow
async def test_a_body_that_trickles(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    """Each byte comes in time, and all of them never would."""

    def answering(request: Request) -> Iterator[bytes]:
        yield cut(file_answer(request, BODY), 1)
        for at in range(1, 1000):
            server.stopped.wait(0.05)
            yield BODY[at : at + 1]

    server.answering = answering
    once = stores.open_http(server.url, patience=dataclasses.replace(HASTY, attempts=1))
    with pytest.raises(TransientError, match=r"too slow, \d+ bytes in"):
        await fetch(once, "b", state_dir / "b")
    await once.close()


@pytest.mark.parametrize("honest", [True, False])
async def test_larger_than_allowed(
    server: WebServer, store: stores.Store, state_dir: Path, *, honest: bool
) -> None:
    """By what the server says, before a byte is taken; and by what comes."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    server.answering = lambda request: file_answer(request, BODY) if honest else head + BODY
    with pytest.raises(AgentError, match="and 1000 are allowed") as caught:
        await fetch(store, "b", state_dir / "b", limit_bytes=1000)
    assert caught.value.code is Code.BUNDLE_REFUSED
    assert not isinstance(caught.value, TransientError)
    assert (state_dir / "b").stat().st_size < 2**20
    assert len(server.requests) == 1


@pytest.mark.parametrize("honest", [True, False])
async def test_another_size_than_the_manifest_says(
    server: WebServer, store: stores.Store, state_dir: Path, *, honest: bool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    server.answering = lambda request: file_answer(request, BODY) if honest else head + BODY
    with pytest.raises(AgentError, match=f"has {len(BODY)} bytes, and should have 1000") as caught:
        await fetch(store, "b", state_dir / "b", size=1000)
    assert caught.value.code is Code.BUNDLE_DAMAGED


async def test_a_range_that_begins_elsewhere(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    await leave_a_part(server, state_dir / "b")
    wrong = iter([True])

    def answering(request: Request) -> bytes:
        if next(wrong, False):
            etag = file_answer(request, BODY).partition(b"etag: ")[2].partition(b"\r")[0].decode()
            return answer(206, BODY, etag=etag, content_range=f"bytes 0-9/{len(BODY)}")
        return file_answer(request, BODY)

    server.answering = answering
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST


@pytest.mark.parametrize("status", [429, 503, 500, 502])
async def test_a_busy_server_is_asked_again(
    server: WebServer, store: stores.Store, state_dir: Path, status: int
) -> None:
    refusals = iter([answer(status)] * 2)
    server.answering = lambda request: next(refusals, None) or file_answer(request, BODY)
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert len(server.requests) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seconds", "date"])
async def test_retry_after_is_kept_to(
    server: WebServer, store: stores.Store, state_dir: Path, kind: str
) -> None:
    came: list[float] = []

    def answering(request: Request) -> bytes:
        came.append(time.time())
        if len(came) > 1:
            return file_answer(request, BODY)
        date = formatdate(time.time() + 2, usegmt=True)  # whole seconds: 1 to 2 from now
        return answer(503, retry_after="1" if kind == "seconds" else date)

    server.answering = answering
    assert (await fetch(store, "b", state_dir / "b")).sha256 == DIGEST
    assert 0.9 < came[1] - came[0] < 3


async def test_a_long_retry_after_is_the_callers(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    server.answering = lambda _: answer(503, retry_after="600")
    with pytest.raises(TransientError) as caught:
        await fetch(store, "b", state_dir / "b")
    assert caught.value.retry_after == 600
    assert len(server.requests) == 1


async def test_cancel_is_noticed_while_nothing_comes(server: WebServer, state_dir: Path) -> None:
    def answering(request: Request) -> Iterator[bytes]:
        yield cut(file_answer(request, BODY), 2**20)
        yield from server.stall()

    server.answering = answering
    store = stores.open_http(server.url)
    cancel = Cancel()
    running = asyncio.ensure_future(fetch(store, "b", state_dir / "b", cancel=cancel))
    target = state_dir / "b"
    await wait_until_async(lambda: target.exists() and target.stat().st_size)
    cancel.set("aborted")
    with pytest.raises(Interrupted, match="aborted"):
        await asyncio.wait_for(running, 2)
    await store.close()


async def test_packed_content_stays_packed(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    packed = gzip.compress(BODY)
    server.answering = lambda request: file_answer(request, packed, content_encoding="gzip")
    fetched = await fetch(store, "b", state_dir / "b")
    assert fetched.sha256 == hashlib.sha256(packed).hexdigest()


async def test_missing_is_not_tried_again(
    server: WebServer, store: stores.Store, state_dir: Path
) -> None:
    server.answering = lambda _: answer(404)
    with pytest.raises(NotFound, match=f"cannot fetch {server.url}/b: it is not there"):
        await fetch(store, "b", state_dir / "b")
    assert len(server.requests) == 1


@pytest.mark.root
async def test_full_disk(store: stores.Store, small_disk: Path) -> None:
    with pytest.raises(AgentError) as caught:
        await fetch(store, "b", small_disk / "b")
    assert caught.value.code is Code.DISK_FULL
