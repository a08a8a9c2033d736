"""The deployment's log file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agent.system import deployment_log
from agent.system.deployment_log import DeploymentLog


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x1bcb", "a\\x1bcb"),
        ("50%\r100%", "50%\\x0d100%"),
        ("tab\tstays, so does ü", "tab\tstays, so does ü"),
        ("\x00\x7f\x9b31m", "\\x00\\x7f\\x9b31m"),
        ("reversed \u202etxt", "reversed \\u202etxt"),
    ],
)
def test_control_characters_are_neutralised(text: str, shown: str) -> None:
    assert deployment_log.plain(text) == shown


def test_hook_cannot_speak_as_the_agent(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    output = log.hook("ApplicationStart", "x.sh\nagent: fake")
    output.write("stdout", b"one\n2026-01-01T00:00:00.000Z agent: success\r\n\x85agent: x\n")
    output.close()
    lines = log.path.read_text().splitlines()
    assert all(" ApplicationStart x.sh\\x0aagent: fake [stdout] " in line for line in lines)
    assert len(lines) == 3


def test_lines_of_the_agent(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    log.line("one\ntwo")
    assert [line[25:] for line in log.path.read_text().splitlines()] == ["agent: one", "agent: two"]


def test_removed_file_comes_back(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    log.line("one")
    log.path.unlink()
    log.line("two")
    assert "two" in log.path.read_text()


def test_what_could_not_be_written_is_counted_and_told(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    log.path.symlink_to("/dev/full")  # O_NOFOLLOW refuses it, like a full disk
    log.line("lost")
    assert log.lost_bytes > 30
    log.path.unlink()
    log.line("found")
    text = log.path.read_text()
    assert "bytes of this log are lost" in text
    assert "agent: found" in text
    assert log.lost_bytes == 0


def test_fifo_in_its_place_hangs_nothing(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    os.mkfifo(log.path)
    log.line("lost")
    assert log.lost_bytes


def test_writers_in_many_threads_do_not_mix_lines(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    output = log.hook("ApplicationStart", "x.sh")

    def write(number: int) -> None:
        for _ in range(200):
            log.line(f"agent {number}")
            output.write(f"stream{number}", b"half ")
            output.write(f"stream{number}", b"line\n")

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output.close()
    texts = [line[25:] for line in log.path.read_text().splitlines()]
    for number in range(4):
        assert texts.count(f"agent: agent {number}") == 200
        assert texts.count(f"ApplicationStart x.sh [stream{number}] half line") == 200
    assert len(texts) == 1600


def test_begun_lines_of_both_streams_survive_the_end_of_the_head(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    output = log.hook("E", "x", limit_bytes=20_000)
    output.write("stderr", b"begun ")
    output.write("stdout", b"".join(b"%03d\n" % number for number in range(400)) + b"also ")
    output.write("stderr", b"ended\n")
    output.write("stdout", b"ended\n")
    output.close()
    text = log.path.read_text()
    assert "[stderr] begun ended\n" in text
    assert "[stdout] also ended\n" in text
    assert "[stdout] 000\n" in text
    assert "[stdout] 399\n" in text
    assert output.last_lines(2) == ("begun ended", "also ended")


# lines of the journal, which have their own times


def journal_lines(first: int, count: int) -> list[tuple[float, bytes]]:
    return [(1.5 + number, b"line %06d" % number) for number in range(first, first + count)]


def said(log: DeploymentLog) -> list[str]:
    lines = log.path.read_text().splitlines()
    return [line.partition("[output] ")[2] for line in lines if "[output] " in line]


def test_lines_have_the_time_when_they_came(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    output = log.hook("E", "x")
    assert output.write_lines([(1.0, b"one"), (86400.25, b"two\x1b[31m")]) == 2
    output.close()
    assert log.path.read_text().splitlines() == [
        "1970-01-01T00:00:01.000Z E x [output] one",
        "1970-01-02T00:00:00.250Z E x [output] two",
    ]
    assert output.last_lines() == ("one", "two")


def test_of_many_lines_head_and_tail_are_kept(tmp_path: Path) -> None:
    log = DeploymentLog(tmp_path / "log")
    output = log.hook("E", "x", limit_bytes=20_000)
    written = sum(output.write_lines(journal_lines(first, 100)) for first in range(0, 10_000, 100))
    output.close()
    found = said(log)
    assert found[written - 1] == f"line {written - 1:06d}"
    assert found[-1] == "line 009999"
    left_out = 12 * (10_000 - len(found))
    assert f"{left_out} bytes left out" in log.path.read_text()
    assert log.path.stat().st_size < 21_000


@pytest.mark.parametrize("stops_at", [5, 500])
def test_another_start_of_the_agent_goes_on_where_it_was(tmp_path: Path, stops_at: int) -> None:
    """At 5 lines the head has room left; at 500 the rest was held, and is lost with the agent."""
    whole, parted = DeploymentLog(tmp_path / "whole"), DeploymentLog(tmp_path / "parted")
    output = whole.hook("E", "x", limit_bytes=10_000)
    output.write_lines(journal_lines(0, 1000))
    output.close()

    output = parted.hook("E", "x", limit_bytes=10_000)
    written = output.write_lines(journal_lines(0, stops_at))
    again = parted.hook("E", "x", limit_bytes=10_000, kept_bytes=output.kept_bytes)
    again.write_lines(journal_lines(written, 1000 - written))
    again.close()
    assert said(parted) == said(whole)


def test_last_lines_of_an_earlier_start_are_recalled(tmp_path: Path) -> None:
    output = DeploymentLog(tmp_path / "log").hook("E", "x")
    output.write_lines([(1.0, b"after")])
    output.recall([b"before", b"", b"after"])
    assert output.last_lines() == ("before", "after")
    assert "before" not in (tmp_path / "log").read_text()
