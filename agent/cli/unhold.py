"""agentctl unhold: let deployments begin again."""

from __future__ import annotations

import argparse

from agent.cli import output
from agent.cli.exits import Exit
from agent.client import Client, default_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl unhold`."""
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """End the hold."""
    body = Client(args.socket or default_socket()).call("DELETE", "/v1/hold")
    output.show(args, body, lambda _body, _style: ["deployments may begin again"])
    return Exit.OK
