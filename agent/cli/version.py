"""agentctl version: print the versions of agentctl and of the running agent."""

from __future__ import annotations

import argparse
import time

import agent
from agent.cli import output, text
from agent.cli.exits import Exit
from agent.client import Client, default_socket

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl version`."""
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print both; `agentctl --version` asks no agent."""
    if not args.json:
        print(f"agentctl {agent.__version__}", flush=True)
    body = Client(args.socket or default_socket()).call("GET", "/v1/version")
    output.show(args, {**body, "agentctl": agent.__version__}, _lines)
    return Exit.OK


def _lines(body: Body, _style: text.Style) -> list[str]:
    up = text.seconds(time.time() - body["started_at"])
    return [f"deploy-agent {body['version']}, pid {body['pid']}, up {up}, in {body['state_dir']}"]
