"""agentctl abort: stop the running deployment and undo it."""

from __future__ import annotations

import argparse
import time

from agent.cli import explain, output, text
from agent.cli.exits import Exit
from agent.client import Client, default_socket, quote

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl abort`."""
    parser.add_argument(
        "deployment", nargs="?", default="last", metavar="ID", help="default: the one that runs"
    )
    parser.add_argument(
        "--now", action="store_true", help="stop a running hook too, do not wait for its end"
    )
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for the abort, and say what it waits for."""
    path = f"/v1/deployments/{quote(args.deployment)}/abort"
    body = Client(args.socket or default_socket()).call("POST", path, {"now": args.now})
    output.show(args, body, _lines)
    return Exit.OK


def _lines(body: Body, style: text.Style) -> list[str]:
    deployment = body["deployment"]
    if deployment["outcome"]:
        return [explain.ending(deployment, style)]
    doing, where = explain.doing(deployment, time.time()), deployment["id"]
    return [f"{explain.name(deployment)}: {doing}; to follow it: agentctl logs -f {where}"]
