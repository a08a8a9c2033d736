"""agentctl push: publish a bundle to an environment, or put an earlier version back there."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from agent.cli import publishing, teller
from agent.formats import environments
from agent.model.environments import Environment
from agent.model.errors import AgentError, Code
from agent.publish import bundle_file, promote, push, signing
from agent.publish.deliver import Order
from agent.publish.results import Publication


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl push`."""
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        help="the zip; without it, --application and --version name what is there already",
    )
    parser.add_argument("--to", metavar="ENVIRONMENT", required=True, help="where to publish it")
    parser.add_argument("--application", metavar="NAME", help="for a bundle that does not say it")
    parser.add_argument(
        "--version", help="for a bundle that does not say it; without bundle: put this one back"
    )
    publishing.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Publish, and print what happened at each target."""
    if args.bundle is None and not (args.version and args.application):
        raise AgentError(
            "cannot push: no bundle is named",
            code=Code.BAD_REQUEST,
            remedy="Name one: agentctl push BUNDLE --to ENVIRONMENT; or an earlier version, by"
            " --application and --version",
        )
    environment = environments.choose(environments.load_environments(args.environments), args.to)
    work = _put_back if args.bundle is None else _push
    what = args.bundle or f"{args.application} {args.version}"
    return publishing.run(
        args, f"agentctl push {what} to {environment.name}", lambda t: work(args, environment, t)
    )


def _push(args: argparse.Namespace, environment: Environment, telling: teller.Lines) -> Publication:
    described = bundle_file.describe(
        args.bundle, version=args.version or "", application=args.application or ""
    )
    order = Order(
        environment,
        described,
        signing.load_to_publish(environment),
        source=args.bundle.name,
        is_dry_run=args.dry_run,
        is_partial=args.partial,
    )
    return publishing.run_to_end(push.push(order, args.bundle, telling))


def _put_back(
    args: argparse.Namespace, environment: Environment, telling: teller.Lines
) -> Publication:
    keys = signing.load_to_publish(environment)
    request = promote.Request(
        args.application,
        origin=environment,
        target=environment,
        ring=keys.ring,
        keys=keys,
        version=args.version,
        is_dry_run=args.dry_run,
        is_partial=args.partial,
    )
    with tempfile.TemporaryDirectory() as folder:
        return publishing.run_to_end(promote.promote(request, Path(folder), telling))
