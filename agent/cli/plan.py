"""agentctl plan: list everything that a bundle would change, and change nothing."""

from __future__ import annotations

import argparse
import os

from agent.cli import connection, output, text
from agent.cli.exits import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

_PLAN_SECONDS = 600.0  # a large bundle is unpacked and hashed for it
_EXITS = """\
exit codes:
  0  it can be deployed
  1  it would be refused; the reasons are listed
  2  wrong usage
  4  no permission
  7  the agent is not running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl plan`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the zip, tar, tgz or folder to look at")
    parser.add_argument("--application", metavar="NAME", help="default: what the bundle says")
    output.add_json_argument(parser)
    connection.add_foreground_arguments(parser)
    parser.epilog = _EXITS


def run(args: argparse.Namespace) -> int:
    """Print the plan; the exit code says whether it would be refused."""
    body = {"bundle": os.path.abspath(args.bundle)}
    if args.application is not None:
        body["application"] = args.application
    with connection.connect(args) as client:
        answer = client.call("POST", "/v1/plan", body, timeout=_PLAN_SECONDS)
    output.show(args, answer, lambda shown, style: lines(shown["plan"], style))
    return Exit.FAILED if answer["plan"]["refused"] else Exit.OK


def lines(plan: Body, style: text.Style) -> list[str]:
    """The plan for people: verdict, reasons, changes, space."""
    title = style("bold", f"{plan['application']} {plan['version']}")
    verdict = style("red", "would be refused") if plan["refused"] else "can be deployed"
    shown = [f"{title} {verdict}: {_counts(plan)}"]
    for conflict in plan["conflicts"]:
        owner = f" ({conflict['owner']})" if conflict["owner"] else ""
        shown.append(
            f"  {style('red', 'conflict')}  {conflict['path']}{owner}: {conflict['detail']}"
        )
    for problem in plan["problems"]:
        shown += text.indent(problem, f"  {style('red', 'problem')}   ")
    for warning in plan["warnings"]:
        shown += text.indent(warning, f"  {style('yellow', 'warning')}   ")
    shown += [_change(change, style) for change in plan["changes"]]
    if plan["truncated"]:
        shown.append(f"  and {plan['truncated']} more")
    return shown + [_space(space, style) for space in plan["space"]]


def _counts(plan: Body) -> str:
    parts = [f"{action} {count}" for action, count in plan["counts"].items() if count]
    return f"{', '.join(parts) or 'no change'}; {text.size(plan['bytes'])} to copy"


def _change(change: Body, style: text.Style) -> str:
    colour = {"add": "green", "remove": "red", "replace": "yellow"}.get(change["action"], "dim")
    line = f"  {style(colour, change['action'].ljust(8))}  {change['path']}"
    return f"{line}  ({change['detail']})" if change["detail"] else line


def _space(space: Body, style: text.Style) -> str:
    is_short = (
        space["needed_bytes"] > space["free_bytes"] or space["needed_inodes"] > space["free_inodes"]
    )
    words = (
        f"{space['mount']}: needs {text.size(space['needed_bytes'])} of "
        f"{text.size(space['free_bytes'])} free, "
        f"{space['needed_inodes']} of {space['free_inodes']} inodes"
    )
    return f"  space     {style('red', words) if is_short else words}"
