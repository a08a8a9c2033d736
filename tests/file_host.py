"""A scratch host for tests of plan, install and undo: releases, a state file, and targets."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.archive import index
from agent.files import apply, plan, planfile, restore
from agent.model.appspec import AppSpec, FileMapping
from agent.model.deployment import Revision
from agent.model.release import Layout, Release
from agent.model.settings import Limits
from agent.store import installed
from agent.system import process
from agent.system.cancel import Cancel
from agent.system.process import Captured

MTIME_NS = 1_700_000_000_123_456_789
FEW = Limits(free_bytes=0, free_inodes=0)


@dataclass(frozen=True)
class Link:
    """A symlink in a release."""

    target: str


@dataclass(frozen=True)
class File:
    """A file in a release that is not like the others."""

    content: str
    mode: int = 0o644
    mtime_ns: int = MTIME_NS


Content = str | Link | File


class FileHost:
    """Everything below base: base/state is the agent's, base/host what is deployed to."""

    def __init__(self, base: Path, *, is_new: bool = True) -> None:
        self.base = base
        self.host = base / "host"
        self.layout = Layout(base / "state")
        if is_new:
            self.host.mkdir(exist_ok=True)  # a test may have mounted something there
            self.layout.releases.mkdir(parents=True)
            with closing(sqlite3.connect(self.layout.database)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(installed.SCHEMA)
        self.installed = installed.InstalledFiles(self.layout.database)

    def release(self, name: str, files: dict[str, Content]) -> Release:
        """Write a release as unpack leaves it; every folder is made, and listed."""
        release = self.layout.release(name, Revision("app", "default", name, "", digest=name))
        release.tree.mkdir()
        rows: dict[str, tuple[Any, ...]] = {}
        for path, content in files.items():
            for folder in [str(p) for p in Path(path).parents if str(p) != "."]:
                (release.tree / folder).mkdir(parents=True, exist_ok=True)
                rows[folder] = (folder, "dir", 0o755, 0, 0, b"", None, None)
            rows[path] = _write(release.tree / path, path, content)
        with closing(sqlite3.connect(release.index)) as database:
            database.execute(f"CREATE TABLE {index.ENTRIES}")
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
                sorted(rows.values()),
            )
            database.commit()
        return release

    def deployment(self, name: str, release: Release, **options: Any) -> Deployed:
        """A deployment with its plan made; see Deployed.plan for the options."""
        work_dir = self.layout.work_dir(name)
        work_dir.mkdir(parents=True)
        deployed = Deployed(self, name, work_dir)
        deployed.plan(release, **options)
        return deployed

    def deploy(self, name: str, release: Release, **options: Any) -> Deployed:
        """Plan, refuse, install and commit."""
        deployed = self.deployment(name, release, **options)
        plan.refuse(deployed.path)
        deployed.install()
        deployed.commit()
        return deployed


@dataclass
class Deployed:
    """One deployment on a FileHost."""

    file_host: FileHost
    name: str
    work_dir: Path
    application: str = "app"

    @property
    def path(self) -> Path:
        return self.work_dir / planfile.NAME

    def plan(
        self,
        release: Release,
        *,
        files: Sequence[tuple[str, str | Path]] = (("", ""),),
        current: Release | None = None,
        application: str = "app",
        limits: Limits = FEW,
        capture: plan.Capture = process.capture_blocking,
        problems: Sequence[str] = (),
        is_just_linked: bool = False,
        **appspec: Any,
    ) -> plan.Summary:
        """Make the plan. files: source and destination, by default all of it to host/app."""
        self.application = application
        app = self.file_host.host / "app"
        mappings = tuple(FileMapping(source, str(to or app)) for source, to in files)
        request = plan.PlanRequest(
            application=application,
            deployment_id=self.name,
            release=release,
            current=current,
            appspec=AppSpec("appspec.yml", files=mappings, **appspec),
            work_dir=self.work_dir,
            state_dir=self.file_host.layout.state_dir,
            limits=limits,
            is_just_linked=is_just_linked,
        )
        self.summary = plan.make_plan(
            request, self.file_host.installed, capture=capture, problems=problems, cancel=Cancel()
        )
        self._actions = self._read_actions()
        return self.summary

    def install(self, capture: plan.Capture = process.capture_blocking) -> int:
        return apply.install(
            self.work_dir, capture=capture, progress=lambda _done, _total: None, cancel=Cancel()
        )

    def undo(self, capture: plan.Capture = process.capture_blocking) -> None:
        restore.undo(self.work_dir, capture=capture, cancel=Cancel())

    def commit(self) -> None:
        """Commit and forget, as the store and prune do."""
        database = self.file_host.layout.database
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            installed.attach(connection, self.path)
            connection.execute("BEGIN")
            installed.commit_files(connection, self.application)
            connection.execute("COMMIT")
            installed.detach(connection)
        restore.forget(self.work_dir)

    def actions(self) -> dict[str, str]:
        """Action by path below host, as planned; folders merged with are left out."""
        return self._actions

    def _read_actions(self) -> dict[str, str]:
        with planfile.opened(self.path) as found:
            rows = found.execute("SELECT path, action FROM planned WHERE action <> 'merge'")
            base = f"{self.file_host.host}/"
            return {
                path.removeprefix(base): action for path, action in rows if path.startswith(base)
            }

    def findings(self, kind: str) -> list[tuple[str, str, str]]:
        """Path, owner and text of each conflict, problem or warning."""
        with planfile.opened(self.path) as found:
            query = "SELECT path, owner, text FROM findings WHERE kind = ? ORDER BY id"
            return list(found.execute(query, (kind,)))


class Tools:
    """Stands in for commands that a host may lack: remembers what was asked, answers by name."""

    def __init__(self, **answers: Captured) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._answers = answers

    def __call__(self, argv: Sequence[str]) -> Captured:
        self.asked.append(tuple(argv))
        return self._answers.get(argv[0], Captured(127, "", f"{argv[0]}: not found"))


def _write(path: Path, name: str, content: Content) -> tuple[Any, ...]:
    if isinstance(content, Link):
        path.symlink_to(content.target)
        target = content.target
        digest = hashlib.sha256(target.encode()).digest()
        return (name, "link", 0o777, len(target), 0, digest, None, target)
    file = content if isinstance(content, File) else File(content)
    text = file.content.encode()
    path.write_bytes(text)
    path.chmod(file.mode)
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    digest = hashlib.sha256(text).digest()
    return (name, "file", file.mode, len(text), file.mtime_ns, digest, None, None)
