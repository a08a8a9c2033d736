"""agentctl hold: let no deployment begin until unhold."""

from __future__ import annotations

import argparse
import time

from agent.cli import arguments, output, text
from agent.cli.exits import Exit
from agent.client import Client, default_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl hold`."""
    parser.add_argument(
        "--reason",
        required=True,
        type=arguments.parse_reason,
        help="what others read in status",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="D",
        type=arguments.parse_duration,
        help="how long, such as 30m, 2h or 1d (default: until unhold)",
    )
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Hold. A deployment that runs already goes on to its end."""
    client = Client(args.socket or default_socket())
    body = client.call("PUT", "/v1/hold", {"reason": args.reason, "for_seconds": args.seconds})
    end = time.time() + args.seconds if args.seconds else None
    output.show(args, body, lambda _, style: [_line(args.reason, end, style)])
    return Exit.OK


def _line(reason: str, end: float | None, style: text.Style) -> str:
    until = f" until {text.clock(end, time.time())}" if end else ""
    return f"{style('yellow', 'held')}{until}: {text.clean(reason)}; to end it: agentctl unhold"
