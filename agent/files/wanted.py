"""What a revision wants on the host: the appspec's `files` over the index of the release, in SQL.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'files' section": the content of a folder
goes into the destination, a file keeps its name below it, missing folders are made, folders that
are there are merged with, and two sources for one path are refused.
"""

from __future__ import annotations

import os
import posixpath
import sqlite3
from collections.abc import Sequence

from agent.files import permissions, planfile, unchanged
from agent.files.parts import Part
from agent.model.appspec import AppSpec


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


# rows

_FOLDERS_ABOVE = (
    "SELECT NULL AS source, path, named, 'dir' AS kind, NULL AS mode, NULL AS size,"
    " NULL AS mtime_ns, NULL AS digest, NULL AS target FROM folders_above"
)


def _wanted(part: Part) -> tuple[str, dict[str, str]]:
    """A SELECT of what a part brings, and its parameters."""
    prefix = "" if part.real == "/" else part.real
    named = "" if part.named == "/" else part.named
    first, beyond = part.bounds
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
    folders = [part.bounds for part in parts if part.is_folder and part.source in copied]
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
