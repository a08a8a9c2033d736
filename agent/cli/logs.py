"""agentctl logs: show what a deployment, its hooks and its units said."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator

from agent.cli import connection, text
from agent.cli.exits import Exit
from agent.client import SCHEMA, Client, quote, target
from agent.formats import loglines
from agent.model.errors import AgentError, Code, NotFound

_RETURN_SECONDS = 120.0  # an agent that is upgraded or restarted is back by then
_RESTART_SECONDS = 5.0
_RETRY_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl logs`."""
    parser.add_argument(
        "deployment",
        nargs="?",
        default="last",
        metavar="ID",
        help="default: last, the one that runs or ran",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the deployment ended"
    )
    parser.add_argument(
        "--json", action="store_true", help=f'a JSON object per line, with "schema": {SCHEMA}'
    )
    connection.add_foreground_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the log, line by line as it comes."""
    shown = 0
    with connection.connect(args) as client:
        try:
            for line in _lines(client, args):
                _show(line, args)
                shown += 1
        except AgentError as error:
            if error.code is not Code.AGENT_UNREACHABLE or args.foreground or shown:
                raise
            for line in _lines_of_file(args.deployment, error):
                _show(line, args)
            if args.follow:
                raise
    return Exit.OK


def _show(line: str, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"schema": SCHEMA, "line": line}), flush=args.follow)
    else:
        print(text.clean(line), flush=args.follow)


def _lines(client: Client, args: argparse.Namespace) -> Iterator[str]:
    path = f"/v1/deployments/{quote(args.deployment)}"
    if not args.follow:
        yield from _stream(client, target(f"{path}/log"))
        return
    yield from _follow(client, _wait_for_id(client, path), patient=not args.foreground)


def _wait_for_id(client: Client, path: str) -> str:
    """Which one is followed, for `last` may change meanwhile; an agent may just be restarting."""
    deadline = time.monotonic() + _RESTART_SECONDS
    while True:
        try:
            return str(client.call("GET", path)["deployment"]["id"])
        except AgentError as error:
            if error.code is not Code.AGENT_UNREACHABLE or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def _stream(client: Client, path: str) -> Iterator[str]:
    for entry in client.stream(path):
        yield str(entry.get("line", ""))


def _follow(client: Client, deployment_id: str, *, patient: bool) -> Iterator[str]:
    """Every line once, to the last one of the deployment, also across restarts of the agent."""
    path = f"/v1/deployments/{quote(deployment_id)}"
    shown = 0
    lost_at: float | None = None
    while True:
        problem: AgentError | None = None
        try:
            log = target(f"{path}/log", follow=1, skip=shown or None)
            for line in _stream(client, log):
                lost_at = None
                shown += 1
                yield line
            if client.call("GET", path)["deployment"]["status"] in ("done", "failed"):
                return
        except AgentError as error:
            if error.code is not Code.AGENT_UNREACHABLE:
                raise
            problem = error
        now = time.monotonic()
        if lost_at is None:
            lost_at = now
            if patient:
                print("the agent went away; waiting for it to come back", file=sys.stderr)
        if not patient or now - lost_at > _RETURN_SECONDS:
            raise AgentError(
                "cannot go on: the agent stopped, and the deployment has not ended",
                code=Code.AGENT_UNREACHABLE,
                remedy="See why: journalctl -u deploy-agent -n 50",
            ) from problem
        time.sleep(_RETRY_SECONDS)


def _lines_of_file(deployment: str, unreachable: AgentError) -> list[str]:
    """The log as it lies in the agent's state folder, while no agent runs."""
    # imported here: YAML and all would double the start-up time where an agent answers
    from agent.formats import settings

    folder = settings.load_settings(None, user_defaults=os.geteuid() != 0).state_dir / "deployments"
    try:
        logs = {each.name: each / "log" for each in folder.iterdir() if (each / "log").exists()}
        if deployment == "last" and logs:
            deployment = max(logs, key=lambda name: logs[name].stat().st_mtime)
        if deployment not in logs:
            raise NotFound(
                f"{unreachable.message}; nor has {folder} a log of {deployment}",
                code=Code.AGENT_UNREACHABLE,
                remedy=unreachable.remedy,
            )
        content = logs[deployment].read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise unreachable from error
    print(f"{unreachable.message}; this is {logs[deployment]}", file=sys.stderr)
    return loglines.in_order(content.splitlines())
