"""Holding a zip against every rule of unpacking, without unpacking it."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from pathlib import Path

from agent.archive import kinds, zip_directory
from agent.archive.draft import Draft
from agent.archive.refusals import from_sqlite_error
from agent.archive.roll import Roll
from agent.model.settings import Limits

# those of a host are its own affair
_NO_LIMITS = Limits(
    bundle_bytes=sys.maxsize,
    unpacked_bytes=sys.maxsize,
    members=sys.maxsize,
    depth=sys.maxsize,
    ratio=sys.maxsize,
)


def examine(bundle: Path) -> None:
    """Decide over every entry of a zip as unpack() does; contents are not read.

    Raises AgentError: BUNDLE_REFUSED or BUNDLE_DAMAGED, with what a host would say.
    """
    try:
        with (
            kinds.open_bundle(bundle) as fd,
            tempfile.TemporaryDirectory() as scratch,
            Draft(Path(scratch, "index")) as draft,
        ):
            roll = Roll(draft.db, _NO_LIMITS, os.fstat(fd).st_size)
            roll.add(zip_directory.read_members(fd, zip_directory.find_directory(fd)))
            roll.judge()
            roll.refuse_overlaps()
    except sqlite3.Error as error:
        raise from_sqlite_error(error, f"examine {bundle}") from error
