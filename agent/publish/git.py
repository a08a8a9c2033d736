"""Which commit a folder is of, as git tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import AgentError
from agent.system import process

_ASKED_SECONDS = 30.0
_DIRTY = "-dirty"  # as git describe says it


@dataclass(frozen=True, slots=True)
class Commit:
    """name: of 40 or 64 hex digits, with -dirty where files that git knows were changed.

    time: of the commit, in Unix seconds; 0 and "" outside of a work tree. problem: why git did
    not answer, "" if it did.
    """

    name: str = ""
    time: int = 0
    problem: str = ""


def read_commit(folder: Path, environ: Mapping[str, str]) -> Commit:
    """The commit that is checked out where `folder` lies."""
    where = folder.resolve()
    if not any(os.path.lexists(each / ".git") for each in (where, *where.parents)):
        return Commit()
    env = {**environ, "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0"}
    answers = []
    for question in (
        ("log", "-1", "--no-show-signature", "--format=%H %ct"),
        ("status", "--porcelain", "--untracked-files=no"),
    ):
        argv = ("git", "-C", str(where), *question)
        try:
            answer = process.capture_blocking(argv, timeout_seconds=_ASKED_SECONDS, env=env)
        except AgentError as error:
            return Commit(problem=error.message)
        if answer.code:
            first = next(iter(answer.err.splitlines()), f"exit code {answer.code}")
            return Commit(problem=first)
        answers.append(answer.out)
    name, time = answers[0].split()
    return Commit(name + _DIRTY if answers[1] else name, int(time))
