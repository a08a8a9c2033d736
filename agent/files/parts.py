"""Where an appspec's `files` bring what they name, as the folders on this host are.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'files' section": the content of a folder
goes into the destination, a file keeps its name below it.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from agent.files import planfile
from agent.model.appspec import AppSpec

_MAX_LINKS = 40  # the kernel gives up after as many (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Part:
    """A mapping, or what of it comes to lie elsewhere since a folder on the host is a symlink.

    named: the destination as the appspec has it; real: the same without symlinks.
    without: sources below `source` that parts of their own bring.
    """

    source: str
    named: str
    real: str
    is_folder: bool
    without: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The path that it brings, or below which it brings all."""
        if self.is_folder:
            return self.real
        return posixpath.join(self.real, posixpath.basename(self.source))

    @property
    def bounds(self) -> tuple[str, str]:
        """Between which the index has sorted what is below the source."""
        return planfile.below(self.source) if self.source else ("", "\U0010ffff")


def find_parts(plan: sqlite3.Connection, appspec: AppSpec, application: str) -> list[Part]:
    """The parts of all mappings, as the folders on this host are; what cannot be is a problem."""
    return [
        part
        for mapping in appspec.files
        for part in _parts(plan, mapping.source, mapping.destination, application)
    ]


def _parts(
    plan: sqlite3.Connection, source: str, destination: str, application: str
) -> Iterator[Part]:
    """The mapping's parts, none where it cannot be."""
    kind = "dir"
    if source:
        row = plan.execute("SELECT kind FROM release.entries WHERE path = ?", (source,)).fetchone()
        if row is None:
            text = f"files: the bundle has no {source}"
            planfile.add_finding(plan, "problem", text, path=source)
            return
        kind = row[0]
    if not destination.startswith("/") or ".." in destination.split("/"):
        text = f"files: destination {destination!r} is not an absolute path without .."
        planfile.add_finding(plan, "problem", text, path=destination)
        return

    def is_ours(path: str) -> bool:
        """Whether the current revision put a link there: it is replaced then, not followed."""
        query = "SELECT 1 FROM committed.installed WHERE path = ? AND application = ? AND kind = ?"
        return plan.execute(query, (path, application, "link")).fetchone() is not None

    named = posixpath.normpath("/" + destination.lstrip("/"))
    real = _resolve(plan, named, is_ours)
    if real is not None:
        yield from _split(plan, Part(source, named, real, kind == "dir"), is_ours)


def _split(plan: sqlite3.Connection, part: Part, is_ours: Callable[[str], bool]) -> Iterator[Part]:
    """Part itself, without the folders that are symlinks on this host, and those as parts."""
    if not part.is_folder or not os.path.isdir(part.real):
        yield part
        return
    elsewhere: list[str] = []
    skipped = "/"  # no path begins so: the folder below which there is nothing to look at
    for (source,) in plan.execute(
        "SELECT path FROM release.entries WHERE kind = 'dir' AND path > ? AND path < ?"
        " ORDER BY path",
        part.bounds,
    ):
        if source.startswith(skipped):
            continue
        tail = source[len(part.source) :].lstrip("/")
        path = posixpath.join(part.real, tail)
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            skipped = f"{source}/"
            continue
        if not stat.S_ISLNK(mode):
            continue
        skipped = f"{source}/"  # nothing is looked at through it
        if not is_ours(path) and os.path.isdir(path):
            elsewhere.append(source)
            real = _resolve(plan, path, is_ours)
            if real is not None:
                inner = Part(source, posixpath.join(part.named, tail), real, is_folder=True)
                yield from _split(plan, inner, is_ours)
    yield replace(part, without=tuple(elsewhere))


def _resolve(plan: sqlite3.Connection, path: str, is_ours: Callable[[str], bool]) -> str | None:
    """The path without symlinks, as far as it exists; None (and a problem) for an odd link.

    A link is followed if root or the agent made it, or if whoever made it owns what it leads to:
    else anybody could have root write where they cannot.
    """
    done, left = "/", [name for name in path.split("/") if name]
    links = 0
    while left:
        here = posixpath.join(done, left.pop(0))
        try:
            status = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            return posixpath.join(here, *left)
        if not stat.S_ISLNK(status.st_mode):
            done = here
            continue
        if is_ours(here):
            return posixpath.join(here, *left)
        links += 1
        odd = _odd_link(here, status.st_uid) if links <= _MAX_LINKS else "leads in a circle"
        if odd:
            text = f"{here}, on the way to {path}, is a symlink that {odd}"
            planfile.add_finding(plan, "problem", text, path=here)
            return None
        target = os.readlink(here)
        done = "/" if target.startswith("/") else done
        left = [name for name in target.split("/") if name not in ("", ".")] + left
        while left and left[0] == "..":
            done = posixpath.dirname(done)
            left.pop(0)
    return done


def _odd_link(link: str, owner: int) -> str:
    """Why a symlink is not followed, "" if it is."""
    try:
        status = os.stat(link)
    except OSError:
        return "leads nowhere"
    if not stat.S_ISDIR(status.st_mode):
        return "does not lead to a folder"
    if owner in (0, os.geteuid(), status.st_uid):
        return ""
    return f"uid {owner} made, and leads to a folder of uid {status.st_uid}; make it as root"
