"""What push and promote share: their options, how they run, and how they tell what happened."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from agent.cli import bars, output, teller, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.model.errors import AgentError, Code
from agent.publish import ci
from agent.publish.results import (
    BundleResult,
    GroupResult,
    Outcome,
    PointerResult,
    Publication,
    TargetResult,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

T = TypeVar("T")

EXITS = """\
exit codes:
  0   it is desired everywhere
  1   it did not work: no pointer desires it
  2   wrong usage
  11  partial: it is desired at some targets, and not at others
  130 Ctrl-C; run the same command again to go on"""

_EXIT = {Outcome.DONE: Exit.OK, Outcome.PARTIAL: Exit.PARTIAL, Outcome.FAILED: Exit.FAILED}
_AGAIN = "Run the same command again: what stands is not done again"


def add_file_argument(parser: argparse.ArgumentParser) -> None:
    """Add --environments."""
    parser.add_argument(
        "--environments",
        metavar="FILE",
        type=Path,
        help="the file that describes the environments (default: deploy.yaml here)",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what push and promote have in common."""
    add_file_argument(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would happen, and change nothing"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="flip the pointers of the targets where the upload stands, if others failed",
    )
    output.add_json_argument(parser)
    parser.epilog = EXITS


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run it; TERM ends it as orderly as Ctrl-C does, so that no temporary file is left."""

    async def main() -> T:
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        _leave(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _leave(Exit.INTERRUPTED)


def _leave(code: int) -> NoReturn:
    print(f"agentctl: interrupted. {_AGAIN}", file=sys.stderr)
    sys.exit(code)


def run(args: argparse.Namespace, title: str, work: Callable[[teller.Lines], Publication]) -> int:
    """Do the work, print what happened at each target, tell the CI server; gives the exit code."""
    reporter = ci.detect(os.environ, stream=sys.stderr if args.json else sys.stdout)
    failure: AgentError | None = None
    code = Exit.OK
    try:
        with reporter.group(title):
            reporter.progress(title)
            telling = bars.lines(as_json=args.json)
            try:
                publication = work(telling)
            finally:
                telling.close()
            _show(args, publication)
            _report(reporter, publication)
            code = _EXIT[publication.outcome]
            failure = _failure(publication)
            if failure is not None:
                raise failure  # the group tells the CI server
    except AgentError as error:
        if error is not failure:
            raise
    return code


def _failure(publication: Publication) -> AgentError | None:
    """What is told where it is not desired everywhere; None where it is."""
    if publication.outcome is Outcome.DONE:
        return None
    failures = [target.failure for target in publication.targets if target.failure]
    return AgentError(
        _sentence(publication),
        code=failures[0].code if failures else Code.CONFLICT,
        details=tuple(each.message for each in failures),
        remedy=_next(publication),
    )


def _report(reporter: ci.Reporter, publication: Publication) -> None:
    values = {
        "application": publication.application,
        "version": publication.version,
        "digest": publication.bundle.sha256,
        "environment": publication.environment,
        "outcome": publication.outcome.value,
    }
    for name, value in values.items():
        reporter.output(name, value)
    rows = [
        (f"{target.name}/{group.group}", _pointer_words(target, group))
        for target in publication.targets
        for group in target.groups
    ]
    reporter.summary(f"To {publication.environment}", [*values.items(), *rows])


def _show(args: argparse.Namespace, publication: Publication) -> None:
    output.show(args, _body(publication), lambda _, style: lines(publication, style))
    sys.stdout.flush()
    style = text.Style(colour=text.has_terminal(sys.stderr))
    for target in publication.targets:
        if target.failure is not None:
            print("\n".join(output.error_lines(target.failure, style)), file=sys.stderr)
    if publication.outcome is not Outcome.DONE:
        print(f"agentctl: {text.clean(_sentence(publication))}", file=sys.stderr)
        print(f"  next:  {_next(publication)}", file=sys.stderr)


# for people


def lines(publication: Publication, style: text.Style) -> list[str]:
    """The table, the notes, and the sentence that sums it up where all is well."""
    bundle = publication.bundle
    head, *rest = text.columns(
        [["target", "bundle", "group", "pointer", "before"], *_rows(publication)]
    )
    told = [
        "",
        text.clean(
            f"{publication.application} {publication.version} to {publication.environment}:"
            f" {text.size(bundle.size)} from {publication.source}, sha256 {bundle.sha256[:12]}"
        ),
        style("dim", head),
        *map(text.clean, rest),
        "",
        *(f"note: {text.clean(note)}" for note in publication.notes),
    ]
    if publication.outcome is Outcome.DONE:
        told.append(text.clean(_sentence(publication)))
    return told


def _rows(publication: Publication) -> list[list[str]]:
    rows = []
    for target in publication.targets:
        for index, group in enumerate(target.groups):
            first = [target.name, _bundle_words(target)] if index == 0 else ["", ""]
            before = group.before or ("?" if target.failure else "none")
            rows.append([*first, group.group, _pointer_words(target, group), before])
    return rows


def _bundle_words(target: TargetResult) -> str:
    match target.bundle:
        case BundleResult.UPLOADED:
            return "uploaded"
        case BundleResult.THERE:
            return "was there"
        case BundleResult.WOULD_UPLOAD:
            return "would be uploaded"
        case BundleResult.MISSING:
            return "failed" if target.failure else "not uploaded"


def _pointer_words(target: TargetResult, group: GroupResult) -> str:
    match group.pointer:
        case PointerResult.FLIPPED:
            return f"flipped, serial {group.serial}"
        case PointerResult.RIGHT:
            return "was right"
        case PointerResult.WOULD_FLIP:
            return "would be flipped"
        case PointerResult.KEPT:
            return "failed" if target.failure else "not flipped"


def _sentence(publication: Publication) -> str:
    what = f"{publication.application} {publication.version}"
    where = publication.environment
    pointers = [group.pointer for target in publication.targets for group in target.groups]
    failed = [target.name for target in publication.targets if target.failure]
    if publication.outcome is Outcome.DONE:
        return _done(publication, pointers)
    others = f" ({', '.join(failed)} failed)" if failed else ""
    if publication.outcome is Outcome.FAILED:
        return f"{where} does not desire {what}: no pointer was flipped{others}"
    count = pointers.count(PointerResult.KEPT)
    verb = "would be" if PointerResult.WOULD_FLIP in pointers else "is"
    return (
        f"{what} {verb} desired in a part of {where} only:"
        f" {count} of {len(pointers)} pointers do not follow it{others}"
    )


def _done(publication: Publication, pointers: list[PointerResult]) -> str:
    what = f"{publication.application} {publication.version}"
    where = publication.environment
    flipped = pointers.count(PointerResult.FLIPPED)
    if would := pointers.count(PointerResult.WOULD_FLIP):
        return f"{what} would be desired in {where}: {_count(would)} would be flipped"
    if not flipped:
        return f"{what} is desired everywhere in {where} already: no pointer to flip"
    expires = max(group.expires for target in publication.targets for group in target.groups)
    until = f", until {text.clock(expires, time.time())}" if expires else ""
    return f"{what} is desired in {where} now: {_count(flipped)} flipped{until}"


def _count(number: int) -> str:
    return f"{number} pointer{'' if number == 1 else 's'}"


def _next(publication: Publication) -> str:
    if publication.outcome is Outcome.PARTIAL:
        return _AGAIN
    return f"{_AGAIN}. To do without the targets that failed: --partial"


# for programs


def _body(publication: Publication) -> Body:
    return {
        "schema": SCHEMA,
        "application": publication.application,
        "version": publication.version,
        "environment": publication.environment,
        "source": publication.source,
        "sha256": publication.bundle.sha256,
        "size": publication.bundle.size,
        "dry_run": publication.is_dry_run,
        "outcome": publication.outcome,
        "notes": publication.notes,
        "targets": [
            {
                "name": target.name,
                "url": target.url,
                "bundle": target.bundle,
                "groups": [
                    {
                        "group": group.group,
                        "pointer": group.pointer,
                        "before": group.before,
                        "serial": group.serial,
                        "expires": group.expires,
                    }
                    for group in target.groups
                ],
                "failure": output.error_body(target.failure) if target.failure else None,
            }
            for target in publication.targets
        ],
    }
