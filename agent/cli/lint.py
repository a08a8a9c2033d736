"""agentctl lint: check a bundle, an appspec or a configuration file."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from agent.cli import output, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.model.appspec import Problem, Severity
from agent.publish import ci, lint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl lint`."""
    parser.add_argument(
        "target",
        nargs="?",
        default=".",
        metavar="TARGET",
        help="a folder or archive with an appspec, or a file: an appspec, agent.yaml, deploy.yaml"
        " (default: here)",
    )
    parser.add_argument("--strict", action="store_true", help="let warnings count as errors")
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print every problem. Ends with 0 if the target can be used, 1 if not, 2 if it is absent."""
    reporter = ci.detect(os.environ, stream=sys.stderr if args.json else sys.stdout)
    with reporter.group(f"agentctl lint {args.target}"):
        problems = lint.lint(Path(args.target))
        for problem in problems:
            reporter.problem(problem)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    warnings = len(problems) - errors
    if args.json:
        output.print_json({"schema": SCHEMA, "problems": [asdict(each) for each in problems]})
    else:
        print("\n".join([*map(_line, problems), _summary(args.target, errors, warnings)]))
    return Exit.FAILED if errors or (args.strict and warnings) else Exit.OK


def _line(problem: Problem) -> str:
    return text.clean(str(problem))


def _summary(target: str, errors: int, warnings: int) -> str:
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"{text.clean(target)}: {', '.join(counts) or 'no problems'}"
