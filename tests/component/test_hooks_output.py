"""What hooks print: kept from both ends, in flat memory, and never more than the limit."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import pytest

from tests.hook_scene import DEFAULT_BACKEND, STDERR, STDOUT, Scene

MIB = 2**20


@pytest.mark.slow
async def test_50_mb_of_lines_keep_head_and_tail(state_dir: Path) -> None:
    scene = Scene(state_dir, DEFAULT_BACKEND, log_bytes=2 * MIB)
    before = _peak_bytes()
    await scene.run(
        f"#!{sys.executable}\nimport sys\n"
        "for i in range(1_000_000): sys.stdout.write(f'line {i:07} {\"x\" * 37}\\n')\n"
    )
    assert _peak_bytes() - before < 10 * MIB
    log = scene.read_log()
    assert len(log) < 2.1 * MIB
    assert f"[{STDOUT}] line 0000000 " in log
    assert f"[{STDOUT}] line 0999999 " in log
    seen = [int(each) for each in re.findall(r"line (\d+) x+\n", log)]
    left_out = _left_out(log)
    assert len(seen) * 51 + left_out == 1_000_000 * 51  # 51 bytes a line: none is unaccounted for
    gap = next(i for i, number in enumerate(seen) if number != i)
    assert seen[gap:] == list(range(1_000_000 - (len(seen) - gap), 1_000_000))


@pytest.mark.slow
@pytest.mark.parametrize("flood", ["head -c 20000000 /dev/zero", "yes | head -c 20000000"])
async def test_20_mb_without_a_line_end_or_of_tiny_lines(state_dir: Path, flood: str) -> None:
    scene = Scene(state_dir, DEFAULT_BACKEND, log_bytes=MIB)
    before = _peak_bytes()
    await scene.run(f"{flood}; echo; echo end of it")
    assert _peak_bytes() - before < 10 * MIB
    log = scene.read_log()
    assert len(log) < 1.3 * MIB
    assert f"[{STDOUT}] end of it" in log
    assert _left_out(log) > 18_000_000


async def test_every_line_is_there_with_time_event_script_and_stream(state_dir: Path) -> None:
    scene = Scene(state_dir, DEFAULT_BACKEND)
    await scene.run("echo out; echo err >&2; printf 'no end'")
    lines = scene.read_log().splitlines()
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)"
    texts = [match[1] for line in lines if (match := re.fullmatch(pattern, line))]
    assert len(texts) == len(lines)
    assert f"ApplicationStart run.sh [{STDOUT}] out" in texts
    assert f"ApplicationStart run.sh [{STDERR}] err" in texts
    assert f"ApplicationStart run.sh [{STDOUT}] no end" in texts
    assert texts[0].startswith("agent: ApplicationStart run.sh: begins as ")
    assert scene.log.path.stat().st_mode & 0o777 == 0o640


async def test_evidence_is_the_end_of_a_long_output(state_dir: Path) -> None:
    scene = Scene(state_dir, DEFAULT_BACKEND, log_bytes=64 * 1024)
    error = await scene.failure("seq 1 100000; echo; exit 1")
    output = [line for line in error.details if line.startswith("output: ")]
    assert output == [f"output: {number}" for number in range(99991, 100001)]


def _left_out(log: str) -> int:
    (left_out,) = re.findall(r"… (\d+) bytes left out …", log)
    return int(left_out)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
