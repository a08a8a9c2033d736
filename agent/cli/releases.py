"""agentctl releases: show which version of an application is where."""

from __future__ import annotations

import argparse
import time

from agent.cli import arguments, bars, output, publishing, text
from agent.cli.exits import Exit
from agent.client import SCHEMA
from agent.formats import environments
from agent.model.environments import Environment, Environments
from agent.publish import places, releases, signing
from agent.publish.releases import Followed, Overview, Version
from agent.publish.telling import Teller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

_SOON_SECONDS = 7 * 86400.0  # where the file does not say how long a manifest lasts
_FOLLOWED_TITLES = [
    "environment", "target", "group", "version", "since", "serial", "expires", "sha256"
]  # fmt: skip
_EXITS = """\
exit codes:
  0   every target was looked at
  1   none could be
  2   wrong usage
  11  partial: some targets could not be looked at"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl releases`."""
    parser.add_argument("application", help="whose versions to show")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=arguments.parse_count,
        default=20,
        help="at most so many versions, the last published first (default: 20)",
    )
    publishing.add_file_argument(parser)
    output.add_json_argument(parser)
    parser.epilog = _EXITS


def run(args: argparse.Namespace) -> int:
    """Print what every deployment group follows, and where each version is."""
    known = environments.load_environments(args.environments)
    telling = bars.lines(as_json=True)  # stdout is for the tables
    shown = publishing.run_to_end(_look(args, known, telling))
    now = time.time()
    output.show(
        args,
        _body(args.application, shown),
        lambda _, style: _lines(args.application, shown, known, now=now, style=style),
    )
    for failure in shown.failures.values():
        output.print_error(failure, as_json=False)
    if not shown.failures:
        return Exit.OK
    return Exit.PARTIAL if shown.followed else Exit.FAILED


async def _look(args: argparse.Namespace, known: Environments, telling: Teller) -> Overview:
    rings = signing.load_rings(known, warn=telling.say)
    async with places.opened(*known.all, warn=telling.say) as opened:
        return await releases.overview(args.application, opened, rings, limit=args.limit)


# for people


def _lines(
    application: str, shown: Overview, known: Environments, *, now: float, style: text.Style
) -> list[str]:
    if not shown.versions and not any(each.manifest for each in shown.followed):
        if shown.failures:
            return [f"Nothing is known of {application}"]
        return [f"{application} was not published yet: agentctl push BUNDLE --to ENVIRONMENT"]
    rows = [_followed_row(each, now) for each in shown.followed]
    rows += [[*name.split("/"), "?", "not known", "", "", "", ""] for name in shown.failures]
    told = _table(_FOLLOWED_TITLES, rows, style)
    names = [environment.name for environment in known.all]
    rows = [_version_row(each, shown, known, now) for each in shown.versions]
    told += ["", *_table(["version", "published", "commit", *names], rows, style)] if rows else []
    warnings = [line for each in shown.followed for line in _doubts(each, known, now)]
    return told + ([""] if warnings else []) + [style("yellow", text.clean(w)) for w in warnings]


def _table(titles: list[str], rows: list[list[str]], style: text.Style) -> list[str]:
    head, *rest = text.columns([titles, *rows])
    return [style("dim", head), *map(text.clean, rest)]


def _followed_row(followed: Followed, now: float) -> list[str]:
    found = followed.manifest
    place = [followed.environment, followed.target, followed.group]
    if found is None:
        return [*place, "unusable" if followed.problem else "none", "", "", "", ""]
    return [
        *place,
        found.version,
        text.clock(followed.since, now) if followed.since else "",
        str(found.serial or ""),
        _expiry(found.expires, now),
        found.bundle.sha256[:12] if found.bundle else "",
    ]


def _expiry(expires: float, now: float) -> str:
    if not expires:
        return "never"
    return text.ago(expires, now) if expires <= now else f"in {text.seconds(expires - now)}"


def _version_row(version: Version, shown: Overview, known: Environments, now: float) -> list[str]:
    commit = version.manifest.commit[:12] if version.manifest else ""
    cells = [_cell(version, shown, environment) for environment in known.all]
    return [version.version, text.clock(version.published, now), commit, *cells]


def _cell(version: Version, shown: Overview, environment: Environment) -> str:
    """How far a version is in an environment: desired, there, or neither."""
    of_it = [each for each in shown.followed if each.environment == environment.name]
    desired = [e for e in of_it if e.manifest and e.manifest.version == version.version]
    if desired:
        part = f" by {len(desired)} of {len(of_it)}" if len(desired) < len(of_it) else ""
        return f"desired{part}"
    targets = {each.target for each in of_it}
    there = targets.intersection(version.where.get(environment.name, ()))
    if not there:
        return "-"
    return "there" if there == targets else f"at {len(there)} of {len(targets)} targets"


def _doubts(followed: Followed, known: Environments, now: float) -> list[str]:
    """What is wrong with a pointer, or soon will be."""
    at = f"{followed.environment}/{followed.target} {followed.group}"
    if followed.problem is not None:
        return [f"{at}: {followed.problem.message}"]
    found = followed.manifest
    if found is None or not found.expires:
        return []
    lasting = environments.choose(known, followed.environment).expires_seconds
    if found.expires - now > (lasting / 4 if lasting else _SOON_SECONDS):
        return []
    word = "expired" if found.expires <= now else "expires"
    again = (
        f"agentctl push --application {found.application} --version {found.version}"
        f" --to {followed.environment}"
    )
    expiry = _expiry(found.expires, now)
    return [f"{at}: {found.version} {word} {expiry}; renew it, by: {again}"]


# for programs


def _body(application: str, shown: Overview) -> Body:
    return {
        "schema": SCHEMA,
        "application": application,
        "followed": [_followed_body(each) for each in shown.followed],
        "versions": [_version_body(each) for each in shown.versions],
        "failures": [
            {"target": name, **output.error_body(error)} for name, error in shown.failures.items()
        ],
    }


def _followed_body(followed: Followed) -> Body:
    found = followed.manifest
    return {
        "environment": followed.environment,
        "target": followed.target,
        "group": followed.group,
        "version": found.version if found else "",
        "sha256": found.bundle.sha256 if found and found.bundle else "",
        "commit": found.commit if found else "",
        "serial": found.serial if found else 0,
        "expires": found.expires if found else 0.0,
        "since": followed.since,
        "problem": output.error_body(followed.problem) if followed.problem else None,
    }


def _version_body(version: Version) -> Body:
    found = version.manifest
    return {
        "version": version.version,
        "published": version.published,
        "sha256": found.bundle.sha256 if found and found.bundle else "",
        "size": found.bundle.size if found and found.bundle else 0,
        "commit": found.commit if found else "",
        "built_at": found.built_at if found else 0.0,
        "where": version.where,
    }
