"""What agentctl prints: an answer as JSON or as lines for people, and errors with their remedy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from agent.cli import text
from agent.client import SCHEMA
from agent.model.errors import AgentError

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body

    Render = Callable[[Body, text.Style], list[str]]


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help=f'print JSON, with "schema": {SCHEMA}, times in Unix seconds',
    )


def show(args: argparse.Namespace, body: Body, render: Render) -> None:
    """Print an answer: as it came with --json, else the lines that `render` makes of it.

    What the renderer sees was cleaned of terminal escape sequences: versions, messages and
    output lines come from bundles and hooks.
    """
    if args.json:
        print_json(body)
        return
    style = text.Style(colour=text.has_terminal(sys.stdout))
    print("\n".join(render(text.clean_all(body), style)))


def print_json(body: Body) -> None:
    """Print one JSON object. ASCII only, so that no escape sequence gets through."""
    print(json.dumps(body, indent=2))


def print_error(error: AgentError, *, as_json: bool) -> None:
    """Say what went wrong on stderr, and as {"schema", "error"} on stdout for --json."""
    if as_json:
        print_json({"schema": SCHEMA, "error": error_body(error)})
    style = text.Style(colour=text.has_terminal(sys.stderr))
    print("\n".join(error_lines(error, style)), file=sys.stderr)


def error_body(error: AgentError) -> Body:
    """An error as it stands in JSON."""
    return {
        "code": error.code,
        "message": error.message,
        "details": list(error.details),
        "remedy": error.remedy,
        "where": error.where,
    }


def error_lines(error: AgentError, style: text.Style) -> list[str]:
    """An error for people: message and code, place, evidence, next command."""
    lines = [f"agentctl: {style('red', text.clean(error.message))} [{error.code}]"]
    if error.where:
        lines += text.indent(text.clean(error.where), "  where: ")
    for detail in error.details:
        lines += text.indent(text.clean(detail), "    | ")
    if error.remedy:
        lines += text.indent(text.clean(error.remedy), "  next:  ")
    return lines
