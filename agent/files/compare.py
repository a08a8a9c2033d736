"""Compare what a plan wants with what is on the host, and save each path's action.

Runs twice: when the plan is made, and again just before the install, since hooks run in between
(an `rm -rf` in BeforeInstall is common). The second time looks only into folders in which an
entry was made, removed or replaced: their change time tells, which no program can set.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

from agent.files import choose, early, planfile, unchanged, walk
from agent.files.choose import NOT_TOUCHED, Action, Row
from agent.model.appspec import FileExistsBehavior
from agent.system.cancel import Cancel

_BATCH = 2000
_LISTED = 20
_QUERY = (
    "SELECT path, action, kind, coalesce(old_mtime_ns, mtime_ns), size, mode | 32768, uid, gid"
    " FROM actions"
)  # 32768: S_IFREG
_INSIDE = (
    "path >= :first AND path < :beyond AND kind <> 'dir' AND instr(substr(path, :name_at), '/') = 0"
)
_FULL = f"SELECT {choose.COLUMNS} FROM actions WHERE path = ?"  # noqa: S608

_Fast = tuple[str, str, str, int, int, int, int, int]


@dataclass(slots=True)
class Findings:
    """What a comparison met.

    touched:  the existing folders in which something will change.
    changed:  how many of ours others have edited; listed: the first of them.
    replaced: how many files that are not ours are replaced.
    cleared:  our folders that give way to a file or a link.
    """

    touched: set[str] = field(default_factory=set)
    changed: int = 0
    listed: list[str] = field(default_factory=list)
    replaced: int = 0
    cleared: list[str] = field(default_factory=list)


def compare(
    plan: sqlite3.Connection, behavior: FileExistsBehavior, cancel: Cancel, look: early.EarlyLook
) -> Findings:
    """Set each path's action, and save conflicts and what the second comparison needs."""
    with closing(_Comparison(plan, behavior, cancel, is_first=True)) as comparison:
        where = "1"
        look.join()
        if look.is_whole:
            plan.execute("CREATE TEMP TABLE changed (path TEXT PRIMARY KEY) WITHOUT ROWID")
            plan.executemany("INSERT INTO changed VALUES (?)", zip(look.changed))
            unchanged.take_in(plan, "path IN (SELECT path FROM changed)")
            where = "(action <> 'keep' OR kind <> 'file' OR path IN (SELECT path FROM changed))"
            comparison.seen = look.seen
        else:
            unchanged.take_in(plan, "1")
        comparison.look_at_all(where)
    plan.executemany(
        "INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?)",
        [
            (folder, *found, folder in comparison.findings.touched)
            for folder, found in comparison.seen.items()
        ],
    )
    return comparison.findings


def compare_again(
    plan: sqlite3.Connection, behavior: FileExistsBehavior, cancel: Cancel
) -> Findings:
    """The same for what may have changed since; all else is as compare() left it.

    What was unchanged, and maybe is not any more, has its row then.
    """
    with closing(_Comparison(plan, behavior, cancel, is_first=False)) as comparison:
        dirty = comparison.look_at_all("kind = 'dir'")
        for folder, changed_ns, is_touched in plan.execute(
            "SELECT path, changed_ns, is_touched FROM seen ORDER BY path"
        ):
            if is_touched:
                comparison.findings.touched.add(folder)
            if changed_ns == 0 or walk.look_at(folder)[0] != changed_ns:
                dirty.add(folder)
        for folder in sorted(dirty):
            first, beyond = planfile.below(folder)
            bounds = {"first": first, "beyond": beyond, "name_at": len(first) + 1}
            unchanged.take_in(plan, _INSIDE, **bounds)
            comparison.look_at_all(_INSIDE, **bounds)
    return comparison.findings


class _Comparison:
    """One comparison on its way.

    seen: the folders that were looked into, and what look_at() gave.
    """

    def __init__(
        self,
        plan: sqlite3.Connection,
        behavior: FileExistsBehavior,
        cancel: Cancel,
        *,
        is_first: bool,
    ) -> None:
        self.findings = Findings()
        self.seen: dict[str, walk.Looked] = {}
        self._missing, self._beyond = "", ""  # the bounds of what a missing folder would hold
        self._plan = plan
        self._behavior = behavior
        self._cancel = cancel
        self._is_first = is_first
        self._folders = walk.Folders()
        self._folder = "\0"  # no path has it
        self._descriptor: int | None = None

    def close(self) -> None:
        """Close what is open."""
        self._folders.close()

    def look_at_all(self, where: str, **values: object) -> set[str]:
        """Compare the paths `where`, in order; the folders that were missing and are there now."""
        query = f"{_QUERY} WHERE path >= :start AND {where} ORDER BY path LIMIT {_BATCH}"
        start, appeared = "", set()
        self._missing, self._beyond = "", ""
        while rows := self._plan.execute(query, {**values, "start": start}).fetchall():
            self._cancel.check()
            appeared |= self._look_at(rows)
            start = max(f"{rows[-1][0]}\0", self._beyond)  # nothing is below what is missing
        return appeared

    def _look_at(self, rows: Iterable[_Fast]) -> set[str]:
        appeared = set()
        updates: list[tuple[object, ...]] = []
        for row in rows:
            path = row[0]
            if path < self._beyond and path.startswith(self._missing):
                continue
            cut = path.rfind("/")
            if path[:cut] != self._folder:
                self._enter(path[:cut])
            found = None
            try:
                if self._descriptor is not None:
                    name = path[cut + 1 :] or "."
                    found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            except FileNotFoundError:
                pass
            if found is None and row[2] == "dir":
                self._miss(row)
            if found is not None:
                if row[1] == "keep" and row[2] == "file" and _is_as_committed(row, found):
                    continue
                if row[1] == "mkdir":
                    appeared.add(path)
            self._choose(Row._make(self._plan.execute(_FULL, (path,)).fetchone()), found, updates)
        self._plan.executemany(
            "UPDATE actions SET action = ?, was = ?, intact = intact AND ?,"
            " old_mtime_ns = coalesce(?, old_mtime_ns) WHERE path = ?",
            updates,
        )
        return appeared

    def _enter(self, folder: str) -> None:
        self._folder = folder
        if self._is_first and (folder or "/") not in self.seen:
            self.seen[folder or "/"] = walk.look_at(folder or "/")
        try:
            self._descriptor = self._folders.open(folder)
        except (FileNotFoundError, NotADirectoryError):  # or a link of ours, which gives way
            self._descriptor = None
        except OSError as error:
            text = f"cannot look into {folder}: {error.strerror}"
            planfile.add_finding(self._plan, "problem", text, path=folder)
            self._descriptor = None

    def _miss(self, row: _Fast) -> None:
        """Nothing is below a folder that is missing: set it so, and look at none of it."""
        self._missing, self._beyond = planfile.below(row[0])
        if self._is_first or row[1] != Action.MKDIR:  # else they are set so already
            self._plan.execute(
                "UPDATE actions SET was = NULL, intact = intact AND ?,"
                " action = CASE WHEN ours = 3 THEN action WHEN kind = 'dir' THEN 'mkdir'"
                " ELSE 'add' END WHERE path >= ? AND path < ? AND ours <> -1"
                " AND (was IS NOT NULL OR intact OR action NOT IN ('add', 'mkdir'))",
                (not self._is_first, self._missing, self._beyond),
            )

    def _choose(
        self, row: Row, found: os.stat_result | None, updates: list[tuple[object, ...]]
    ) -> None:
        choice = choose.choose(row, found, self._behavior)
        if choice.action is Action.CONFLICT:
            planfile.add_finding(self._plan, "conflict", choice.detail, path=row.path)
        findings = self.findings
        if found is not None and row.ours > 0 and row.intact and choose.is_edited(row, found):
            findings.changed += 1
            if len(findings.listed) < _LISTED:
                findings.listed.append(row.path)
        if choice.action is Action.REPLACE and row.ours == 0:
            findings.replaced += 1
        if choice.action is Action.REPLACE and choice.was == "dir" and row.kind != "dir":
            findings.cleared.append(row.path)
            _check_cleared(self._plan, row.path)
        if choice.action not in NOT_TOUCHED and (choice.was is not None or row.ours != 3):
            findings.touched.add(walk.split(row.path)[0])
        # what was intact when the plan was made is put back by an undo, whatever it is now
        intact = choice.intact or not self._is_first
        if (choice.action, choice.was) != (row.action, row.was) or choice.mtime_ns or not intact:
            updates.append((choice.action, choice.was, intact, choice.mtime_ns, row.path))


def _is_as_committed(row: _Fast, found: os.stat_result) -> bool:
    return (
        found.st_mtime_ns == row[3]
        and found.st_size == row[4]
        and found.st_mode == row[5]
        and found.st_uid == row[6]
        and found.st_gid == row[7]
    )


def _check_cleared(plan: sqlite3.Connection, path: str) -> None:
    """A folder of ours gives way to a file or link only if all that it holds is ours, too."""
    stranger = walk.find_stranger(plan, path, where="ours = 3")
    if stranger is not None:
        detail = f"it is a folder here, and none in the bundle, and holds {stranger}"
        planfile.add_finding(plan, "conflict", detail, path=path)
