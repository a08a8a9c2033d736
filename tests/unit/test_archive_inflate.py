"""ISA-L and zlib give the same answer to every stream, good, damaged or made to deceive."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.archive import inflate
from agent.archive.gunzip import Gunzip
from agent.model.errors import AgentError, Code
from agent.model.settings import Limits
from agent.system.cancel import Cancel
from tests import inflating
from tests.lint.source import ROOT

READ_BYTES = 64 * 1024  # at once, of a gzip file
PIECE_BYTES = 256 * 1024
ROUNDS = 100


@pytest.fixture(params=inflating.LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[str]:
    with inflating.by(request.param):
        yield request.param


def gunzipped(packed: bytes, folder: Path) -> bytes:
    (folder / "packed").write_bytes(packed)
    fd = os.open(folder / "packed", os.O_RDONLY)
    try:
        return b"".join(Gunzip(fd, Limits(), Cancel()).pieces())
    finally:
        os.close(fd)


def deflated(content: bytes, level: int = 6) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def in_pieces(packed: bytes, size: int = 1000, most: int = PIECE_BYTES) -> bytes:
    parts = (packed[at : at + size] for at in range(0, len(packed), size))
    return b"".join(inflate.pieces(parts, len(packed), most))


def gzip_with(flags: int, fields: bytes, content: bytes = b"content") -> bytes:
    plain = gzip.compress(content, mtime=0)
    return plain[:3] + bytes([flags]) + plain[4:10] + fields + plain[10:]


# --- what one of them would do otherwise


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
def test_reserved_flags_are_damage(flag: int, library: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="unknown header flags set") as caught:
        gunzipped(gzip_with(flag, b""), tmp_path)
    assert caught.value.code == Code.BUNDLE_DAMAGED


@pytest.mark.parametrize("before", [*range(1, 24), 1010, 1015])
def test_a_header_that_two_reads_bring(before: int, library: str, tmp_path: Path) -> None:
    second = gzip_with(0x1C, b"\4\0abcd" + b"name\0" + b"a comment " * 99 + b"\0")
    first = gzip_with(0x04, b"\0\0", b"")
    padding = bytes(READ_BYTES - len(first) - before)
    assert gunzipped(first + padding + second, tmp_path) == b"content"


def test_a_header_bigger_than_a_read(library: str, tmp_path: Path) -> None:
    packed = gzip_with(0x08, b"n" * 2 * READ_BYTES + b"\0")
    assert gunzipped(packed + packed, tmp_path) == b"content" * 2


@pytest.mark.parametrize("behind", [1, 2, 6, 7, 8, 9, 1000, 1001])
@pytest.mark.parametrize("content", [b"", b"x", b"content " * 50], ids=len)
def test_bytes_behind_the_end_are_noticed(content: bytes, behind: int, library: str) -> None:
    packed = deflated(content)
    assert inflate.whole(packed, len(content) + 1) == (content, True)
    assert inflate.whole(packed + bytes(behind), len(content) + 1) == (content, False)
    assert in_pieces(packed, 5) == content
    for size in (1, len(packed), len(packed) + behind - 1, 10_000):
        with pytest.raises(inflate.CannotInflate):
            in_pieces(packed + bytes(behind), size)


def test_output_that_waits_in_the_library_is_fetched(library: str, tmp_path: Path) -> None:
    content = bytes(300_000)
    assert in_pieces(deflated(content), most=100) == content
    assert gunzipped(gzip.compress(content) * 3, tmp_path) == content * 3


def test_a_lie_about_the_size_costs_one_byte(library: str) -> None:
    content, is_whole = inflate.whole(deflated(bytes(2**20)), 11)
    assert (len(content), is_whole) == (11, False)


@pytest.mark.parametrize("behind", range(1, 9))
def test_checksum_and_size_behind_a_member(behind: int, library: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"content " * 50_000))
    packed[-behind] ^= 0x10
    with pytest.raises(AgentError, match="cannot be inflated") as caught:
        gunzipped(bytes(packed), tmp_path)
    assert caught.value.code == Code.BUNDLE_DAMAGED


@pytest.mark.parametrize("behind", range(1, 9))
def test_a_member_that_is_cut_off(behind: int, library: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cut off: is it still being copied"):
        gunzipped(gzip.compress(b"content " * 50_000)[:-behind], tmp_path)


def test_crc32_goes_on(library: str) -> None:
    crc32 = inflate.library().crc32
    assert crc32(b"56789", crc32(b"1234", 0)) == 0xCBF43926


# --- and by chance


def contents(rnd: random.Random) -> bytes:
    size = rnd.choice([0, 1, 2, 10, 1000, 40_000, 200_000])
    words = [b"alpha ", b"beta ", b"\n", rnd.randbytes(3)]
    return rnd.choice(
        [
            lambda: bytes(size),
            lambda: rnd.randbytes(size),
            lambda: b"".join(rnd.choices(words, k=size // 8)),
            lambda: rnd.randbytes(size // 2) + bytes(size // 2),
        ]
    )()


def damaged(packed: bytes, rnd: random.Random) -> bytes:
    """Cut off, with more behind it, or with a bit that is another one: most near an end."""
    near = rnd.randrange(min(len(packed), 40))
    place = rnd.choice([near, len(packed) - 1 - near, rnd.randrange(len(packed))])
    turned = bytearray(packed)
    turned[place] ^= 1 << rnd.randrange(8)
    more = packed + rnd.choice([rnd.randbytes, bytes])(rnd.randrange(1, 20))
    return rnd.choice([packed, packed[:place], more, bytes(turned), bytes(turned)])


@dataclass(frozen=True)
class Streams:
    """raw: deflated; members: of a gzip file; cut: bytes in a piece of raw; most: bytes to read."""

    content: bytes
    raw: bytes
    members: bytes
    cut: int
    most: int

    def answers(self, folder: Path) -> list[object]:
        asked = (self._whole, self._in_pieces, lambda: gunzipped(self.members, folder))
        return [answer(ask) for ask in asked]

    def _whole(self) -> object:
        found, is_whole = inflate.whole(self.raw, self.most)
        return self._checked(found) if is_whole else len(found)

    def _in_pieces(self) -> object:
        return self._checked(in_pieces(self.raw, self.cut))

    def _checked(self, found: bytes) -> object:
        """A zip knows the CRC."""
        return found if found == self.content else Code.BUNDLE_DAMAGED


def answer(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except AgentError as error:
        return error.code
    except inflate.CannotInflate:
        return Code.BUNDLE_DAMAGED


def streams(rnd: random.Random) -> Streams:
    content, level = contents(rnd), rnd.choice([0, 1, 6, 9])
    members = gzip.compress(content, level, mtime=0) + bytes(rnd.choice([0, 0, 512]))
    return Streams(
        content,
        raw=damaged(deflated(content, level), rnd),
        members=damaged(members, rnd),
        cut=rnd.choice([7, 70_000]),
        most=max(1, len(content) + rnd.choice([1, 1, -1])),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_both_give_the_same_answer(seed: int, tmp_path: Path) -> None:
    rnd = random.Random(seed)
    seen = set()
    for each in [streams(rnd) for _ in range(ROUNDS)]:
        with inflating.by("zlib"):
            by_zlib = each.answers(tmp_path)
        with inflating.by("isal"):
            by_isal = each.answers(tmp_path)
        for one, other in zip(by_isal, by_zlib, strict=True):
            # a table of codes that only zlib refuses, while the content is right
            assert one == other or (one, other) == (each.content, Code.BUNDLE_DAMAGED)
        seen |= {type(found) for found in by_zlib}
    assert seen == {bytes, int, Code}


def test_it_is_loaded_with_the_first_archive() -> None:
    code = (
        "import sys\n"
        "from agent.archive import inflate, unpack\n"
        "before = 'isal' in sys.modules\n"
        "inflate.library()\n"
        "print(before, 'isal' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=9, check=True)
    with inflating.by("isal"):
        assert done.stdout.split() == ["False", "True"]
