"""agentctl bundle: make a bundle of a folder, in CI or by hand; asks no agent."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from agent.cli import output, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.formats import wording
from agent.model.appspec import Problem, Severity
from agent.model.manifest import Compatible
from agent.publish import bundle, ci


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl bundle`."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="what to pack, with an appspec in its root"
    )
    parser.add_argument("--version", required=True, metavar="VERSION", help="such as 1.214")
    parser.add_argument(
        "--application",
        default="",
        metavar="NAME",
        help="default: as the folder's release.json says, else the folder's name",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="default: APPLICATION-VERSION.zip in the working folder"
    )
    parser.add_argument(
        "--commit", default="", metavar="COMMIT", help="default: what git says of the folder"
    )
    parser.add_argument(
        "--compatible-os",
        action="append",
        default=[],
        metavar="OS",
        help="only for such hosts: debian-12, or debian; may be given again",
    )
    parser.add_argument(
        "--compatible-arch",
        action="append",
        default=[],
        metavar="ARCH",
        help="only for such hosts: amd64, arm64; may be given again",
    )
    parser.add_argument(
        "--allow-secrets",
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder below FOLDER that may hold private keys; may be given again",
    )
    parser.add_argument("--force", action="store_true", help="replace another bundle of that name")
    parser.add_argument("--verbose", action="store_true", help="list what is left out")
    output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Make the bundle. Ends with 0, with 1 if the folder or the output is refused, 2 if misused."""
    reporter = ci.detect(os.environ, stream=sys.stderr if args.json else sys.stdout)
    problems: list[Problem] = []

    def tell(problem: Problem) -> None:
        problems.append(problem)
        reporter.problem(problem)
        if problem.severity is Severity.WARNING and not args.json:
            print(text.clean(str(problem)), flush=True)

    with reporter.group(f"agentctl bundle {args.folder}"):
        reporter.progress(f"bundling {args.folder} as {args.version}")
        built = bundle.build(_request(args), os.environ, tell=tell)
        if args.json:
            output.print_json(_as_json(built, problems))
        else:
            print("\n".join(_lines(built, verbose=args.verbose)), flush=True)
        _report(reporter, built)
    return Exit.OK


def _request(args: argparse.Namespace) -> bundle.Request:
    return bundle.Request(
        folder=Path(args.folder),
        version=args.version,
        application=args.application,
        output=Path(args.output) if args.output else None,
        commit=args.commit,
        compatible=Compatible(tuple(args.compatible_os), tuple(args.compatible_arch)),
        allowed_secrets=tuple(args.allow_secrets),
        replace=args.force,
    )


def _as_json(built: bundle.Built, problems: list[Problem]) -> dict[str, object]:
    manifest = built.manifest
    return {
        "schema": SCHEMA,
        "path": str(built.path),
        "size": built.size,
        "sha256": built.sha256,
        "application": manifest.application,
        "version": manifest.version,
        "commit": manifest.commit,
        "built_at": manifest.built_at,
        "unpacked": asdict(manifest.unpacked) if manifest.unpacked else None,
        "left_out": list(built.left_out),
        "problems": [asdict(each) for each in problems],
    }


def _lines(built: bundle.Built, *, verbose: bool) -> list[str]:
    manifest, count = built.manifest, len(built.left_out)
    lines = [f"{manifest.application} {manifest.version}: {text.clean(str(built.path))}"]
    if unpacked := manifest.unpacked:
        was = f"{unpacked.files} files of {text.size(unpacked.bytes)}"
        lines.append(f"  size:     {text.size(built.size)} ({built.size} bytes), {was}")
    lines.append(f"  sha256:   {built.sha256}")
    if manifest.commit:
        lines.append(f"  commit:   {manifest.commit}")
    if count:
        lines.append(f"  left out: {count} {'entry' if count == 1 else 'entries'}")
        if verbose:
            lines += [f"    {wording.name(each)}" for each in built.left_out]
    return lines


def _report(reporter: ci.Reporter, built: bundle.Built) -> None:
    manifest = built.manifest
    values = {
        "application": manifest.application,
        "version": manifest.version,
        "path": str(built.path.absolute()),
        "digest": built.sha256,
    }
    for name, value in values.items():
        reporter.output(name, value)
    reporter.summary("Bundle", [*values.items(), ("size", text.size(built.size))])
