"""agentctl unhold: let deployments begin again."""

from __future__ import annotations

import argparse

from agent.cli import output, text
from agent.cli.exits import Exit
from agent.client import Client, default_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl unhold`."""
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """End the hold."""
    body = Client(args.socket or default_socket()).call("DELETE", "/v1/hold")
    output.show(args, body, lambda body, _style: [_line(body["lifted"])])
    return Exit.OK


def _line(lifted: dict[str, str] | None) -> str:
    if lifted is None:
        return "there was no hold: deployments may begin"
    by, reason = text.clean(lifted["by"]), text.clean(lifted["reason"])
    return f"the hold of {by} is lifted ({reason}): deployments may begin again"
