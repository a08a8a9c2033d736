"""Speaks to the CI server that runs us: TeamCity by service messages, GitHub by workflow commands.

    reporter = ci.detect(os.environ, stream=sys.stdout)     # says nothing where there is no CI
    with reporter.group("bundle dist"):                     # folds what is printed meanwhile
        reporter.problem(problem)                           # a finding of lint, at its line
        reporter.progress("packing")                        # where the build is just now
        reporter.output("version", "1.214")                 # for later steps of the build
        reporter.summary("Bundle", [("version", "1.214")])  # a table on the page of the build

An AgentError that leaves a group is told as the reason why the build failed, once. Later steps find
an output as the parameter deploy.<name> in TeamCity, as steps.<id>.outputs.<name> on GitHub.

stream: stdout, where both servers listen. With --json it is stderr, as stdout then belongs to the
program that asked. GitHub listens there as well; that TeamCity does is not sure, so a build that
wants its messages does without --json. GitHub's files are written in either case.

Sources: TeamCity, "Service Messages"; GitHub, "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from agent.model.appspec import Problem
from agent.model.errors import AgentError, Code, from_os_error


def detect(environ: Mapping[str, str], *, stream: TextIO) -> Reporter:
    """The reporter for the CI server whose variables are set."""
    if environ.get("TEAMCITY_VERSION"):
        return _TeamCity(stream)
    if environ.get("GITHUB_ACTIONS") == "true":
        return _GitHub(stream, environ)
    return Reporter()


class Reporter:
    """Nobody listens: every method does nothing. Texts may hold anything, they are escaped."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._failed: AgentError | None = None

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Fold what is printed in the block; tell the AgentError that leaves it."""
        self._begin(title)
        try:
            yield
        except AgentError as error:
            if error is not self._failed:
                self._failed = error
                details = [each for each in error.details if each not in self._told]
                remedy = [error.remedy] if error.remedy else []
                self._fail(error.code, "\n".join([error.message, *details, *remedy]))
            raise
        finally:
            self._end(title)

    def problem(self, problem: Problem) -> None:
        """A finding, at its place in a file of the checkout."""
        self._told.add(str(problem))
        self._show(problem)

    def progress(self, text: str) -> None:
        """What is done now; TeamCity shows it in its list of builds."""

    def output(self, name: str, value: str) -> None:
        """Give a value to later steps. name: small letters and _."""

    def summary(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """What came out: a line in the log, and on GitHub a table on the page of the build."""

    def _begin(self, title: str) -> None:
        """Open a group."""

    def _end(self, title: str) -> None:
        """Close it."""

    def _show(self, problem: Problem) -> None:
        """Tell a finding."""

    def _fail(self, code: Code, reason: str) -> None:
        """The build fails for this reason, of one or more lines."""


class _TeamCity(Reporter):
    _MOST_CHARS = 4000  # of a build problem's description; what is longer is cut by the server

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def _show(self, problem: Problem) -> None:
        self._say("message", text=str(problem), status=problem.severity.value.upper())

    def progress(self, text: str) -> None:
        print(f"##teamcity[progressMessage '{_piped(text)}']", file=self._stream, flush=True)

    def output(self, name: str, value: str) -> None:
        self._say("setParameter", name=f"deploy.{name}", value=value)

    def summary(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        words = ", ".join(f"{name} {value}" for name, value in rows)
        self._say("message", text=f"{title}: {words}", status="NORMAL")

    def _begin(self, title: str) -> None:
        self._say("blockOpened", name=title)

    def _end(self, title: str) -> None:
        self._say("blockClosed", name=title)

    def _fail(self, code: Code, reason: str) -> None:
        self._say("buildProblem", description=reason[: self._MOST_CHARS], identity=code.value)

    def _say(self, message: str, **values: str) -> None:
        words = " ".join(f"{name}='{_piped(value)}'" for name, value in values.items())
        print(f"##teamcity[{message} {words}]", file=self._stream, flush=True)


def _piped(text: str) -> str:
    """TeamCity's escapes; all but ASCII by number, so that no locale can spoil it."""
    short = {"|": "||", "'": "|'", "[": "|[", "]": "|]", "\n": "|n", "\r": "|r"}
    return "".join(
        short.get(sign) or (sign if " " <= sign <= "~" else _units(sign)) for sign in text
    )


def _units(sign: str) -> str:
    """One sign as its UTF-16 units, which is how Java counts."""
    encoded = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"|0x{encoded[at : at + 2].hex()}" for at in range(0, len(encoded), 2))


class _GitHub(Reporter):
    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._stream = stream
        self._output = environ.get("GITHUB_OUTPUT")
        self._summary = environ.get("GITHUB_STEP_SUMMARY")
        self._workspace = environ.get("GITHUB_WORKSPACE") or "."

    def _show(self, problem: Problem) -> None:
        place = {}
        if os.path.exists(problem.file):  # else it lies in an archive
            place["file"] = os.path.relpath(problem.file, self._workspace)
            if problem.line:
                place |= {"line": str(problem.line), "col": str(problem.column or 1)}
        hint = f" ({problem.suggestion})" if problem.suggestion else ""
        text = f"{problem.message}{hint}" if place else str(problem)
        self._say(problem.severity.value, text, **place)

    def output(self, name: str, value: str) -> None:
        end = "end"
        while end in value:
            end += "_"
        self._append(self._output, f"{name}<<{end}\n{value}\n{end}\n")

    def summary(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        words = ", ".join(f"{name} {value}" for name, value in rows)
        self._say("notice", f"{title}: {words}")
        table = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
        lines = [f"### {_cell(title)}", "", "| | |", "|---|---|", *table, ""]
        self._append(self._summary, "\n".join([*lines, ""]))

    def _begin(self, title: str) -> None:
        self._say("group", title)

    def _end(self, title: str) -> None:  # noqa: ARG002 TeamCity's end names it
        self._say("endgroup", "")

    def _fail(self, code: Code, reason: str) -> None:
        self._say("error", reason, title=code.value)

    def _say(self, command: str, text: str, **properties: str) -> None:
        pairs = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        head = f"{command} {pairs}" if pairs else command
        print(f"::{head}::{_percented(text)}", file=self._stream, flush=True)

    def _append(self, path: str | None, text: str) -> None:
        if not path:
            return
        try:
            with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise from_os_error(error, f"write {path} for GitHub", code=Code.INTERNAL) from error


def _percented(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _percented(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Text in a table of Markdown that stays text."""
    plain = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\`*_|[]~":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
