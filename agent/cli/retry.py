"""agentctl retry: deploy again the revision that was undone."""

from __future__ import annotations

import argparse

from agent.cli import follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl retry`."""
    parser.add_argument("application", nargs="?", help="may be left out where there is only one")
    follow.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Take the revision out of quarantine, deploy it, and follow."""
    body = {} if args.application is None else {"application": args.application}
    return follow.run(args, "/v1/retry", body)
