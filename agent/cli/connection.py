"""Which agent a command talks to: the running one, or a private one for --foreground."""

from __future__ import annotations

import argparse

from agent.client import Client, default_socket
from agent.model.errors import AgentError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.cli.foreground import PrivateAgent


def add_foreground_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --foreground and --config, for the commands that can do without a running agent."""
    group = parser.add_argument_group("without a running agent")
    group.add_argument(
        "--foreground",
        action="store_true",
        help="start a private agent for this command only (CI, laptops; any user)",
    )
    group.add_argument("--config", metavar="FILE", help="the private agent's agent.yaml")


def connect(args: argparse.Namespace) -> Client | PrivateAgent:
    """The agent to ask, as a context whose value is its Client."""
    if getattr(args, "foreground", False):
        # imported here: subprocess and tempfile would double the start-up time of `status`
        from agent.cli import foreground

        return foreground.PrivateAgent(args.config)
    if getattr(args, "config", None) is not None:
        raise AgentError(
            "cannot use --config: the running agent has its own",
            code=Code.BAD_REQUEST,
            remedy="Add --foreground for a private agent",
        )
    return Client(args.socket or default_socket(), instead="add --foreground")
