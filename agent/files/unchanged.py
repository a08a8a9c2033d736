"""Files that a plan wants just as they were committed: nearly all of them, as a rule.

They get no row among the plan's actions. What is committed tells which they are: every file of the
application that has no row (the view `unchanged`, see planfile). Writing them all into each plan
took two fifths of its time where little changes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable

from agent.files import planfile

# of a path that is wanted, before what is committed there is looked up; an ACL or a context is
# looked at by others, too
IS_UNCHANGED = """
kind = 'file' AND has_acl IS NOT 1 AND context IS NULL AND EXISTS (
    SELECT 1 FROM committed.installed i WHERE i.path = v.path AND i.application = :application
        AND i.kind = 'file' AND i.acl IS NULL AND i.context IS NULL AND i.digest = v.digest
        AND i.mode = v.plain_mode AND i.uid = v.uid AND i.gid = v.gid
        AND i.mtime_ns = v.mtime_ns AND i.source = v.source)
"""
# 3090: 06022, set ids and writable for others
CAN_BE_LINKED = (
    "uid = :euid AND mode & 3090 = 0 AND source NOT IN (SELECT path FROM copied)"
    " AND NOT EXISTS (SELECT 1 FROM copied_below WHERE source >= first AND source < beyond)"
)
_TAKE_IN = f"""
INSERT INTO actions (path, action, kind, source, how, mode, uid, gid, size, mtime_ns, digest,
    ours, intact)
SELECT path, action, kind, source, CASE WHEN {CAN_BE_LINKED} THEN 'link' ELSE 'copy' END, mode,
    uid, gid, size, mtime_ns, digest, ours, intact
FROM unchanged WHERE """  # noqa: S608 - our own text
_COUNT = """
SELECT (SELECT count(*) FROM committed.installed WHERE application = :application)
    - (SELECT count(*) FROM actions WHERE ours > 0)
"""  # a third of the time that counting the view takes


def is_alone(place: str, others: Iterable[str]) -> bool:
    """Whether nothing else may be brought to a path or below it.

    Where two places meet, one path may be wanted twice: every row is needed to find that out.
    """
    first = planfile.below(place)[0]
    return not any(
        place == other or place.startswith(planfile.below(other)[0]) or other.startswith(first)
        for other in others
    )


def count(plan: sqlite3.Connection, application: str) -> int:
    """How many there are, once everything else has its row."""
    found: int = plan.execute(_COUNT, {"application": application}).fetchone()[0]
    return found


def take_in(plan: sqlite3.Connection, where: str, **values: object) -> int:
    """Give rows to those `where`, to be compared like all others; how many that were."""
    attached = {name for _, name, _ in plan.execute("PRAGMA database_list")}
    if "committed" not in attached:  # the version before made it: all have their rows
        return 0
    return plan.execute(_TAKE_IN + where, {**values, "euid": os.geteuid()}).rowcount
