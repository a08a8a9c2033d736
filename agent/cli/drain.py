"""agentctl drain: keep an application of this host out of Consul's traffic until undrain."""

from __future__ import annotations

import argparse
import time

from agent.cli import arguments, output, text
from agent.cli.exits import Exit
from agent.client import Client, default_socket

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body


EXITS = """\
exit codes:
  0  Consul does it
  1  not yet, and the agent goes on trying; or it did not work
  2  wrong usage
  4  no permission
  7  the agent is not running"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl drain`."""
    parser.add_argument("application", nargs="?", help="which one, where there are several")
    parser.add_argument(
        "--reason",
        required=True,
        type=arguments.parse_reason,
        help="what others read in status and in Consul",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="D",
        type=arguments.parse_duration,
        help="how long, such as 30m, 2h or 1d (default: until undrain)",
    )
    output.add_json_argument(parser)
    parser.epilog = EXITS


def run(args: argparse.Namespace) -> int:
    """Drain. The service itself goes on, and so do deployments."""
    asked = {"reason": args.reason, "for_seconds": args.seconds}
    if args.application is not None:
        asked["application"] = args.application
    body = Client(args.socket or default_socket()).call("PUT", "/v1/drain", asked)
    output.show(args, body, lambda shown, style: lines(shown, style, time.time()))
    return exit_code(body)


def exit_code(body: Body) -> int:
    """1 where Consul does not do it yet: scripts must not go on as if it did."""
    return Exit.FAILED if body["problem"] else Exit.OK


def lines(body: Body, style: text.Style, now: float) -> list[str]:
    """What was asked for, and what stands against it."""
    drain = body["drain"]
    end = f" until {text.clock(drain['until'], now)}" if drain["until"] else ""
    is_done = style("red", "not drained yet") if body["problem"] else style("yellow", "drained")
    words = f"{drain['application']} {is_done}{end}: {text.clean(drain['reason'])}"
    return [f"{words}; to end it: agentctl undrain", *problem_lines(body)]


def problem_lines(body: Body) -> list[str]:
    """Why Consul does not do it yet; none where it does."""
    problem = body["problem"]
    return text.indent(f"the agent goes on trying: {problem}", "  ") if problem else []
