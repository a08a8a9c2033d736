"""SELinux contexts of the appspec's permissions, by semanage and restorecon.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'permissions' section": a context is
made permanent by `semanage fcontext`, and applied by `restorecon`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from agent.files import planfile
from agent.files.owners import Capture
from agent.model.errors import AgentError, Code

_TOOLS = (("semanage", "--help"), ("restorecon", "-n", "/"))


def arguments(context: Sequence[tuple[str, str]]) -> str | None:
    """A permission's context as arguments for semanage fcontext; SELinux names have no blanks."""
    if not context:
        return None
    values = dict(context)
    words = ["-t", values.get("type", "")]
    for option, key in (("-s", "name"), ("-r", "range")):
        if values.get(key):
            words += [option, values[key]]
    return " ".join(words)


def check_tools(plan: sqlite3.Connection, capture: Capture) -> None:
    """A problem for a context on a host that cannot set one."""
    for argv in _TOOLS:
        if capture(argv).code == 127:
            text = (
                f"context: this host has no {argv[0]}; install SELinux's tools"
                " (apt search semanage), or take context out of the appspec's permissions"
            )
            planfile.add_finding(plan, "problem", text)


def set_context(path: str, context: str, capture: Capture) -> None:
    """Make a context permanent and apply it. Raises AgentError (INSTALL_FAILED)."""
    pattern = re.escape(path)
    answer = capture(("semanage", "fcontext", "-a", *context.split(), pattern))
    if answer.code != 0:  # it has one already
        answer = capture(("semanage", "fcontext", "-m", *context.split(), pattern))
    if answer.code == 0:
        answer = capture(("restorecon", "-v", path))
    if answer.code != 0:
        raise AgentError(
            f"cannot set the context of {path}: {answer.err or answer.out}",
            code=Code.INSTALL_FAILED,
            remedy="Correct `context` in the appspec's permissions",
        )


def put_back(path: str, old: str | None, capture: Capture) -> None:
    """Give a path the context that it had by a committed revision, or none of its own."""
    if old is None:
        capture(("semanage", "fcontext", "-d", re.escape(path)))  # it fails where there is none
        capture(("restorecon", path))
    else:
        set_context(path, old, capture)
