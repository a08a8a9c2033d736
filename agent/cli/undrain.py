"""agentctl undrain: let an application of this host into Consul's traffic again."""

from __future__ import annotations

import argparse

from agent.cli import output
from agent.cli.drain import problem_lines
from agent.cli.exits import Exit
from agent.client import Client, default_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl undrain`."""
    parser.add_argument("application", nargs="?", help="which one, where there are several")
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """End the drain."""
    asked = {} if args.application is None else {"application": args.application}
    body = Client(args.socket or default_socket()).call("DELETE", "/v1/drain", asked)
    words = f"{body['application']} takes traffic again, as soon as its checks in Consul pass"
    output.show(args, body, lambda shown, style: [words, *problem_lines(shown, style)])
    return Exit.OK
