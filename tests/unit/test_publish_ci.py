"""What CI servers are told: their words, their escapes, their files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from agent.model.appspec import Problem, Severity
from agent.model.errors import AgentError, Code
from agent.publish import ci

TEAMCITY = {"TEAMCITY_VERSION": "2024.07"}
ODD = "it's [50%] | a:b,c\r\n##teamcity[x] ::error::é\U0001f600"


def said(environ: dict[str, str]) -> tuple[ci.Reporter, io.StringIO]:
    stream = io.StringIO()
    return ci.detect(environ, stream=stream), stream


def error(*details: str) -> AgentError:
    return AgentError("cannot x", code=Code.BUNDLE_REFUSED, details=details, remedy="Do y")


@pytest.mark.parametrize("environ", [{}, {"TEAMCITY_VERSION": ""}, {"GITHUB_ACTIONS": "false"}])
def test_nobody_listens(environ: dict[str, str], tmp_path: Path) -> None:
    reporter, stream = said({**environ, "GITHUB_OUTPUT": str(tmp_path / "out")})
    with reporter.group("x"):
        reporter.problem(Problem(Severity.ERROR, "f", 1, 1, "m"))
        reporter.output("version", "1")
        reporter.summary("x", [("a", "b")])
        reporter.progress("x")
    assert stream.getvalue() == ""
    assert list(tmp_path.iterdir()) == []


# TeamCity


def test_teamcity_messages() -> None:
    reporter, stream = said(TEAMCITY)
    with reporter.group("bundle dist"):
        reporter.progress("packing")
        reporter.problem(Problem(Severity.WARNING, "appspec.yml", 4, 14, "odd", "say so"))
        reporter.output("digest", "ab12")
        reporter.summary("Bundle", [("version", "1.2"), ("size", "3 kB")])
    assert stream.getvalue().splitlines() == [
        "##teamcity[blockOpened name='bundle dist']",
        "##teamcity[progressMessage 'packing']",
        "##teamcity[message text='appspec.yml:4:14: warning: odd (say so)' status='WARNING']",
        "##teamcity[setParameter name='deploy.digest' value='ab12']",
        "##teamcity[message text='Bundle: version 1.2, size 3 kB' status='NORMAL']",
        "##teamcity[blockClosed name='bundle dist']",
    ]


def test_teamcity_escapes() -> None:
    reporter, stream = said(TEAMCITY)
    reporter.progress(ODD)
    assert stream.getvalue() == (
        "##teamcity[progressMessage 'it|'s |[50%|] || a:b,c|r|n##teamcity|[x|]"
        " ::error::|0x00e9|0xd83d|0xde00']\n"
    )


def test_teamcity_is_told_once_why_a_build_failed() -> None:
    reporter, stream = said(TEAMCITY)
    problem = Problem(Severity.ERROR, "f", 1, 1, "m")
    reporter.problem(problem)
    with pytest.raises(AgentError), reporter.group("outer"), reporter.group("inner"):
        raise error("evidence", str(problem))
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if "buildProblem" in line] == [
        "##teamcity[buildProblem description='cannot x|nevidence|nDo y' identity='bundle-refused']"
    ]
    assert [line.split()[0] for line in lines[-2:]] == ["##teamcity[blockClosed"] * 2


def test_teamcity_takes_4000_signs_of_a_reason() -> None:
    reporter, stream = said(TEAMCITY)
    with pytest.raises(AgentError), reporter.group("x"):
        raise error("y" * 9000)
    assert stream.getvalue().count("y") < 4010


# GitHub


def github(tmp_path: Path) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }


def test_github_commands(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    path = tmp_path / "a,b" / "appspec.yml"
    path.touch()
    reporter, stream = said(github(tmp_path))
    with reporter.group("bundle dist"):
        reporter.problem(Problem(Severity.ERROR, str(path), 4, 14, "odd: 50%", "say so"))
        reporter.problem(Problem(Severity.WARNING, str(path), 0, 0, "odd"))
        reporter.problem(Problem(Severity.ERROR, "in-an-archive.yml", 4, 14, "odd"))
        reporter.progress("packing")
        reporter.summary("Bundle", [("version", "1.2")])
    assert stream.getvalue().splitlines() == [
        "::group::bundle dist",
        "::error file=a%2Cb/appspec.yml,line=4,col=14::odd: 50%25 (say so)",
        "::warning file=a%2Cb/appspec.yml::odd",
        "::error::in-an-archive.yml:4:14: error: odd",
        "::notice::Bundle: version 1.2",
        "::endgroup::",
    ]


def test_github_escapes(tmp_path: Path) -> None:
    reporter, stream = said(github(tmp_path))
    with pytest.raises(AgentError), reporter.group("x"):
        raise error(ODD)
    _, line, _ = stream.getvalue().splitlines()
    escaped = "it's [50%25] | a:b,c%0D%0A##teamcity[x] ::error::é\U0001f600"
    assert line == f"::error title=bundle-refused::cannot x%0A{escaped}%0ADo y"


def read_outputs(text: str) -> dict[str, str]:
    """As the runner reads them: name<<DELIMITER, lines, DELIMITER."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        if line:
            name, _, end = line.partition("<<")
            value = []
            while (each := next(lines)) != end:
                value.append(each)
            found[name] = "\n".join(value)
    return found


@pytest.mark.parametrize("value", ["1.214", "", "a=b<<end", "x\nend\nversion<<end\n2", "end"])
def test_github_outputs(tmp_path: Path, value: str) -> None:
    reporter, _ = said(github(tmp_path))
    reporter.output("first", value)
    reporter.output("second", "2")
    text = (tmp_path / "output").read_text()
    assert read_outputs(text) == {"first": value, "second": "2"}


def test_github_summary_is_a_table_whose_cells_are_text(tmp_path: Path) -> None:
    reporter, _ = said(github(tmp_path))
    reporter.summary("Bundle", [("path", "a|b <img> `x`\n| y")])
    assert (tmp_path / "summary").read_text() == (
        "### Bundle\n\n| | |\n|---|---|\n| path | a\\|b &lt;img&gt; \\`x\\` \\| y |\n\n"
    )


def test_github_file_that_cannot_be_written(tmp_path: Path) -> None:
    reporter, _ = said({**github(tmp_path), "GITHUB_OUTPUT": str(tmp_path)})
    with pytest.raises(AgentError) as caught:
        reporter.output("version", "1")
    assert str(tmp_path) in caught.value.message


def test_github_without_its_files(tmp_path: Path) -> None:
    reporter, _ = said({"GITHUB_ACTIONS": "true"})
    reporter.output("version", "1")
    reporter.summary("x", [])
