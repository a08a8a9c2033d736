"""agentctl promote: put the version of one environment before the hosts of the next one."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from agent.cli import publishing, teller
from agent.formats import environments
from agent.publish import promote, signing
from agent.publish.results import Publication


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl promote`."""
    parser.add_argument("application", help="what to promote")
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="ENVIRONMENT",
        required=True,
        help="the environment that has it; it is not changed",
    )
    parser.add_argument("--to", metavar="ENVIRONMENT", required=True, help="where to publish it")
    parser.add_argument(
        "--version", help="another one than what is desired there: any that was published there"
    )
    publishing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Promote, and print what happened at each target."""
    known = environments.load_environments(args.environments)
    origin = environments.choose(known, args.origin)
    target = environments.choose(known, args.to)
    promote.ensure_allowed(origin, target)
    request = promote.Request(
        args.application,
        origin=origin,
        target=target,
        ring=signing.load_to_check(origin),
        keys=signing.load_to_publish(target),
        version=args.version or "",
        is_dry_run=args.dry_run,
        is_partial=args.partial,
    )

    def work(telling: teller.Lines) -> Publication:
        with tempfile.TemporaryDirectory() as folder:
            return publishing.run_to_end(promote.promote(request, Path(folder), telling))

    title = f"agentctl promote {args.application} from {origin.name} to {target.name}"
    return publishing.run(args, title, work)
