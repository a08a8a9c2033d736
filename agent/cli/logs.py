"""agentctl logs: show what a deployment and its hooks said."""

from __future__ import annotations

import argparse
import json

from agent.cli import connection, text
from agent.cli.exits import Exit
from agent.client import SCHEMA, quote, target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl logs`."""
    parser.add_argument(
        "deployment",
        nargs="?",
        default="last",
        metavar="ID",
        help="default: last, the one that runs or ran",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the deployment ended"
    )
    parser.add_argument(
        "--json", action="store_true", help=f'a JSON object per line, with "schema": {SCHEMA}'
    )
    connection.add_foreground_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the log, line by line as it comes."""
    follow = 1 if args.follow else None
    path = target(f"/v1/deployments/{quote(args.deployment)}/log", follow=follow)
    with connection.connect(args) as client:
        for entry in client.stream(path):
            if args.json:
                print(json.dumps({"schema": SCHEMA, **entry}), flush=args.follow)
            else:
                print(text.clean(str(entry.get("line", ""))), flush=args.follow)
    return Exit.OK
