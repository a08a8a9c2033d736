"""agentctl deploy: deploy a bundle and follow it to its end."""

from __future__ import annotations

import argparse
import os

from agent.cli import arguments, follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl deploy`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="the zip, tar, tgz or folder to deploy")
    parser.add_argument("--application", metavar="NAME", help="default: what the bundle says")
    parser.add_argument("--version", help="default: what the bundle says")
    parser.add_argument("--group", metavar="NAME", help="deployment group (default: the agent's)")
    parser.add_argument(
        "--force", action="store_true", help="also a revision that was undone here before"
    )
    parser.add_argument(
        "--unsigned",
        metavar="REASON",
        type=arguments.parse_reason,
        help="also without a signature, where this host has keys; the reason is kept",
    )
    follow.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Deploy and follow."""
    body: Body = {"bundle": os.path.abspath(args.bundle)}
    for key in ("application", "version", "group"):
        if getattr(args, key) is not None:
            body[key] = getattr(args, key)
    if args.unsigned is not None:
        body["unsigned"] = args.unsigned
    if args.force:
        body["force"] = True
    return follow.run(args, "/v1/deployments", body)
