"""agentctl undrain: let an application of this host into Consul's traffic again."""

from __future__ import annotations

import argparse

from agent.cli import drain, output, text
from agent.client import Client, default_socket

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl undrain`."""
    parser.add_argument("application", nargs="?", help="which one, where there are several")
    output.add_json_argument(parser)
    parser.epilog = drain.EXITS


def run(args: argparse.Namespace) -> int:
    """End the drain."""
    asked = {} if args.application is None else {"application": args.application}
    body = Client(args.socket or default_socket()).call("DELETE", "/v1/drain", asked)
    output.show(args, body, lines)
    return drain.exit_code(body)


def lines(body: Body, style: text.Style) -> list[str]:
    """What was asked for, and what stands against it."""
    if body["problem"]:
        words = f"{body['application']} {style('red', 'not let in yet')}"
        return [words, *drain.problem_lines(body)]
    return [f"{body['application']} takes traffic again, as soon as its checks in Consul pass"]
