"""agentctl rollback: deploy the previous revision again, or the one named by --to."""

from __future__ import annotations

import argparse

from agent.cli import follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl rollback`."""
    parser.add_argument("application", nargs="?", help="may be left out where there is only one")
    parser.add_argument("--to", metavar="VERSION", help="default: the previous revision")
    follow.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Roll back and follow."""
    given = {"application": args.application, "to": args.to}
    body = {key: value for key, value in given.items() if value is not None}
    return follow.run(args, "/v1/rollback", body)
