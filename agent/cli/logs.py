"""agentctl logs: show what a deployment and its hooks said."""

from __future__ import annotations

import argparse
import json

from agent.cli import connection, text
from agent.cli.exits import Exit
from agent.client import SCHEMA, quote, target
from agent.model.errors import AgentError, Code


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
    path = f"/v1/deployments/{quote(args.deployment)}"
    with connection.connect(args) as client:
        if args.follow:  # which one is `last` may change meanwhile
            path = f"/v1/deployments/{client.call('GET', path)['deployment']['id']}"
        for entry in client.stream(target(f"{path}/log", follow=1 if args.follow else None)):
            if args.json:
                print(json.dumps({"schema": SCHEMA, **entry}), flush=args.follow)
            else:
                print(text.clean(str(entry.get("line", ""))), flush=args.follow)
        if args.follow and not client.call("GET", path)["deployment"]["outcome"]:
            raise AgentError(
                "cannot go on: the agent stopped, and the deployment has not ended",
                code=Code.AGENT_UNREACHABLE,
                remedy="Follow it again: agentctl logs -f",
            )
    return Exit.OK
