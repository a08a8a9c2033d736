"""What a revision wants on the host: the appspec's `files` over the index of the release, in SQL.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'files' section": the content of a folder
goes into the destination, a file keeps its name below it, missing folders are made, folders that
are there are merged with, and two sources for one path are refused.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.files import permissions, planfile, unchanged
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


def find_parts(plan: sqlite3.Connection, appspec: AppSpec, application: str) -> list[Part]:
    """The parts of all mappings, as the folders on this host are; what cannot be is a problem."""
    return [
        part
        for mapping in appspec.files
        for part in _parts(plan, mapping.source, mapping.destination, application)
    ]


def expand(
    plan: sqlite3.Connection, appspec: AppSpec, application: str, parts: Sequence[Part]
) -> None:
    """Fill `actions` with every path that the revision wants or the one before it had.

    Those that it wants just as they are committed are left out (see unchanged). Needs the attached
    files release (the index) and committed. What cannot be is a problem; what each path's action is
    on this host, is found out by compare.
    """
    permissions.save_rules(plan, appspec.permissions)
    _save_copied(plan, appspec, parts)
    rule, named = permissions.rule_of(appspec.permissions)
    values = {**named, "application": application, "euid": os.geteuid(), "egid": os.getegid()}
    met = permissions.Met(plan, rule, named)
    _save_folders_above(plan, parts)
    plan.execute(_insert(_FOLDERS_ABOVE, rule), values)
    met.look(_FOLDERS_ABOVE, {})
    left_out = 0
    for part in parts:
        wanted, where = _wanted(part)
        _check_duplicates(plan, part, wanted, where)
        others = (each.place for each in parts if each is not part)
        is_alone = unchanged.is_alone(part.place, others)
        added = plan.execute(_insert(wanted, rule, all_rows=not is_alone), {**values, **where})
        if is_alone:
            count = plan.execute(f"SELECT count(*) FROM ({wanted})", where)  # noqa: S608
            left_out += count.fetchone()[0] - added.rowcount
        met.look(wanted, where)
        if len(appspec.permissions) > 1:
            _check_permissions_once(plan, appspec, wanted, where)
    permissions.check_rules(plan, appspec.permissions, met)
    if unchanged.count(plan, application) > left_out:
        _add_unwanted(plan, parts, application)


# destinations


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
    _, where = _wanted(part)
    for (source,) in plan.execute(
        "SELECT path FROM release.entries WHERE kind = 'dir' AND path > :first AND path < :beyond"
        " ORDER BY path",
        where,
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


# rows

_FOLDERS_ABOVE = (
    "SELECT NULL AS source, path, named, 'dir' AS kind, NULL AS mode, NULL AS size,"
    " NULL AS mtime_ns, NULL AS digest, NULL AS target FROM folders_above"
)


def _wanted(part: Part) -> tuple[str, dict[str, str]]:
    """A SELECT of what a part brings, and its parameters."""
    prefix = "" if part.real == "/" else part.real
    named = "" if part.named == "/" else part.named
    first, beyond = _bounds(part.source)
    tail = f"substr(e.path, {len(part.source) + 1})" if part.source else "'/' || e.path"
    where = "e.path > :first AND e.path < :beyond"
    values = {"first": first, "beyond": beyond, "real": prefix, "named": named}
    if not part.is_folder:
        tail = ":tail"
        where = "e.path = :source"
        values |= {"tail": "/" + posixpath.basename(part.source), "source": part.source}
    for number, source in enumerate(part.without):
        low, high = f"without{number}_first", f"without{number}_beyond"
        where += f" AND NOT (e.path = :without{number} OR e.path >= :{low} AND e.path < :{high})"
        values[f"without{number}"] = source
        values[low], values[high] = planfile.below(source)
    select = (
        f"SELECT e.path AS source, :real || {tail} AS path, :named || {tail} AS named, e.kind,"  # noqa: S608
        " e.mode, e.size, e.mtime_ns, e.digest, e.target"
        f" FROM release.entries e WHERE {where}"
    )
    return select, values


def _bounds(source: str) -> tuple[str, str]:
    return planfile.below(source) if source else ("", "\U0010ffff")


# From the inside out: which permission applies; what it makes of owner, group and mode; what of it
# was committed here, by whom (ours: see planfile); which action that is, if the host is as it was
# left. LIMIT -1 limits nothing: it keeps SQLite from working out `ours` again for each use of it,
# which takes twice the time. 493: 0755; 511: 0777.
_INSERT = """
INSERT INTO actions (
    path, action, kind, source, how, mode, uid, gid, size, mtime_ns, digest, target, acl,
    context, rule, ours, intact, old_kind, old_mode, old_uid, old_gid, old_size,
    old_mtime_ns, old_digest, old_source, old_context
)
SELECT path,
    CASE WHEN ours = -1 THEN 'conflict'
        WHEN kind = 'dir' THEN CASE ours WHEN 0 THEN 'mkdir' ELSE 'keep' END
        ELSE CASE ours WHEN 0 THEN 'add' WHEN 1 THEN 'keep' ELSE 'replace' END END,
    kind, source,
    CASE WHEN kind = 'file' THEN CASE WHEN acl IS NULL AND context IS NULL AND {can_be_linked}
        THEN 'link' ELSE 'copy' END END,
    mode, uid, gid, size, mtime_ns, digest, target, acl, context, rule, ours, ours > 0,
    CASE ours WHEN 2 THEN i_kind END, CASE ours WHEN 2 THEN i_mode END,
    CASE ours WHEN 2 THEN i_uid END, CASE ours WHEN 2 THEN i_gid END,
    CASE ours WHEN 2 THEN i_size END,
    CASE WHEN ours = 2 OR ours = 1 AND i_mtime_ns <> mtime_ns THEN i_mtime_ns END,
    CASE ours WHEN 2 THEN i_digest END,
    CASE WHEN ours = 2 OR ours = 1 AND i_source IS NOT source THEN i_source END,
    CASE ours WHEN 2 THEN i_context END
FROM (SELECT w.*, i.kind AS i_kind, i.mode AS i_mode, i.uid AS i_uid, i.gid AS i_gid,
        i.size AS i_size, i.mtime_ns AS i_mtime_ns, i.digest AS i_digest, i.source AS i_source,
        i.context AS i_context,
        CASE WHEN i.path IS NULL THEN 0
            WHEN i.application <> :application THEN
                CASE WHEN i.kind = 'dir' AND w.kind = 'dir' THEN 0 ELSE -1 END
            WHEN i.kind <> w.kind OR i.acl IS NOT w.acl OR i.context IS NOT w.context THEN 2
            WHEN w.kind = 'dir' THEN 1
            WHEN i.digest = w.digest AND (w.kind = 'link'
                OR i.mode = w.mode AND i.uid = w.uid AND i.gid = w.gid) THEN 1
            ELSE 2 END AS ours
    FROM (SELECT v.*,
            CASE WHEN has_acl THEN acl_mode(rule, plain_mode) ELSE plain_mode END AS mode,
            CASE WHEN has_acl THEN acl_text(rule, plain_mode, kind) END AS acl
        FROM (SELECT n.*, r.has_acl, r.context,
                CASE kind WHEN 'dir' THEN coalesce(r.mode, CASE WHEN r.has_acl THEN 493 END)
                    WHEN 'file' THEN coalesce(r.mode, bundle_mode) ELSE 511 END AS plain_mode,
                CASE kind WHEN 'dir' THEN r.uid ELSE coalesce(r.uid, :euid) END AS uid,
                CASE kind WHEN 'dir' THEN r.gid ELSE coalesce(r.gid, :egid) END AS gid
            FROM (SELECT path, named, kind, source, size, mtime_ns, digest, target,
                    mode AS bundle_mode, {rule} AS rule FROM ({wanted})) n
            LEFT JOIN rules r ON r.rule = n.rule) v WHERE {where}) w
    LEFT JOIN committed.installed i ON i.path = w.path LIMIT -1)
WHERE 1 ON CONFLICT (path) DO NOTHING
"""


def _insert(wanted: str, rule: str, *, all_rows: bool = True) -> str:
    """The statement that makes actions of what `wanted` selects, by the permission `rule`.

    all_rows: also of what is unchanged.
    """
    return _INSERT.format(
        wanted=wanted,
        rule=rule,
        where="1" if all_rows else f"NOT ({unchanged.IS_UNCHANGED})",
        can_be_linked=unchanged.CAN_BE_LINKED,
    )


_NOT_WANTED_ANY_MORE = """
INSERT INTO actions (path, action, kind, ours, intact, old_kind, old_mode, old_uid, old_gid,
    old_size, old_mtime_ns, old_digest, old_source, old_context)
SELECT i.path, CASE i.kind WHEN 'dir' THEN 'rmdir' ELSE 'remove' END, i.kind, 3, 1, i.kind,
    i.mode, i.uid, i.gid, i.size, i.mtime_ns, i.digest, i.source, i.context
FROM committed.installed i
WHERE i.application = ? AND NOT EXISTS (SELECT 1 FROM actions a WHERE a.path = i.path)
    AND NOT EXISTS (SELECT 1 FROM wanted_files w WHERE w.path = i.path)
"""


def _add_unwanted(plan: sqlite3.Connection, parts: Sequence[Part], application: str) -> None:
    """Add what is committed and not wanted any more."""
    plan.execute("CREATE TEMP TABLE wanted_files (path TEXT PRIMARY KEY) WITHOUT ROWID")
    for part in parts:
        wanted, where = _wanted(part)
        plan.execute(
            f"INSERT OR IGNORE INTO wanted_files SELECT path FROM ({wanted}) WHERE kind = 'file'",  # noqa: S608
            where,
        )
    plan.execute(_NOT_WANTED_ANY_MORE, (application,))


def _save_copied(plan: sqlite3.Connection, appspec: AppSpec, parts: Sequence[Part]) -> None:
    """Save the sources that are never linked.

    Hook scripts, so that nothing can change through a target what root will run; and what is
    mapped twice, so that the two targets do not become one file.
    """
    copied = {hook.location for hooks in appspec.hooks.values() for hook in hooks}
    for number, one in enumerate(parts):
        for other in parts[:number]:
            for inner, outer in ((one, other), (other, one)):
                is_below = inner.source.startswith(planfile.below(outer.source)[0].lstrip("/"))
                if (is_below or inner.source == outer.source) and inner.source not in outer.without:
                    copied.add(inner.source)
    plan.executemany("INSERT INTO copied VALUES (?)", [(path,) for path in copied])
    folders = [_bounds(part.source) for part in parts if part.is_folder and part.source in copied]
    plan.executemany("INSERT INTO copied_below VALUES (?, ?)", folders)


def _save_folders_above(plan: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """Make the temporary table of the destinations and all folders above them."""
    plan.execute("CREATE TEMP TABLE folders_above (path TEXT PRIMARY KEY, named TEXT NOT NULL)")
    for part in parts:
        real, named = part.real, part.named
        while True:
            plan.execute("INSERT OR IGNORE INTO folders_above VALUES (?, ?)", (real, named))
            if real == "/":
                break
            # above the last symlink on the way both are the same
            same = posixpath.basename(real) == posixpath.basename(named)
            named = posixpath.dirname(named if same else real)
            real = posixpath.dirname(real)


# what cannot be


def _check_duplicates(
    plan: sqlite3.Connection, part: Part, wanted: str, where: dict[str, str]
) -> None:
    """A problem for each path that two sources want, or that is wanted as a file and a folder."""
    first, beyond = planfile.below(part.real)
    others = plan.execute(
        "SELECT EXISTS (SELECT 1 FROM actions WHERE path >= ? AND path < ?)", (first, beyond)
    ).fetchone()
    if not others[0]:
        return
    for path, source, other in plan.execute(
        f"SELECT w.path, w.source, a.source FROM ({wanted}) w JOIN actions a ON a.path = w.path"  # noqa: S608
        " WHERE w.kind <> 'dir' OR a.kind <> 'dir'",
        where,
    ).fetchall():
        text = f"files: {path} would come from {other or 'a destination'} and from {source}"
        planfile.add_finding(plan, "problem", text, path=path)


def _check_permissions_once(
    plan: sqlite3.Connection, appspec: AppSpec, wanted: str, where: dict[str, str]
) -> None:
    """A problem for each path that two permissions apply to."""
    times, values = permissions.times_named(appspec.permissions)
    for (path,) in plan.execute(
        f"SELECT path FROM ({wanted}) WHERE {times} > 1 LIMIT 20",  # noqa: S608
        {**where, **values},
    ).fetchall():
        text = f"permissions: {path} is meant by more than one entry; add an except to one of them"
        planfile.add_finding(plan, "problem", text, path=path)
