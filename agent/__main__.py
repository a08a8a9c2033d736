"""deploy-agent, the daemon: command line, logging, and the last word on errors."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import logging
import os
import sys
from pathlib import Path

from agent import __version__, daemon
from agent.formats import schema
from agent.formats import settings as settings_format
from agent.model.errors import AgentError
from agent.model.messages import Message
from agent.model.settings import Settings
from agent.system import journal, memory

logger = logging.getLogger(__name__)

_CONFIG_EXIT = 78  # EX_CONFIG of sysexits.h: trying again is of no use (RestartPreventExitStatus=)


def main() -> int:
    """Run the daemon; the exit code of the process."""
    args = _parser().parse_args()
    memory.share_one_heap()
    faulthandler.enable()  # where every thread was, when the watchdog ends a hanging agent
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO, handlers=[journal.choose_output()]
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    os.umask(0o022)
    try:
        settings = settings_format.load_settings(args.config, user_defaults=os.geteuid() != 0)
    except AgentError as error:
        _print_error(error, is_private=args.lifeline is not None)
        return _CONFIG_EXIT
    if args.check:
        return 0
    try:
        schema.forget()
        options = daemon.Options(
            socket=args.socket or settings.run_dir / "agent.sock",
            polls=not args.foreground,
            lifeline=args.lifeline,
        )
        asyncio.run(_run(settings, options))
    except AgentError as error:
        _print_error(error, is_private=args.lifeline is not None)
        return 1
    return 0


async def _run(settings: Settings, options: daemon.Options) -> None:
    await daemon.serve(daemon.Daemon(settings, options))


def _print_error(error: AgentError, *, is_private: bool) -> None:
    """is_private: an agentctl reads it, and says it with its code."""
    if is_private:
        body = {"code": error.code, "details": error.details, "remedy": error.remedy}
        print(json.dumps({"message": error.message, **body}), file=sys.stderr)
        return
    lines = [f"deploy-agent: {error.message}", *(f"  {each}" for each in error.details)]
    if error.remedy:
        lines.append(f"{error.remedy}.")
    if journal.is_journal(sys.stderr.fileno()):
        fields = {"MESSAGE_ID": Message.AGENT_REFUSED, "FAILURE_CODE": error.code}
        logger.critical("%s", "\n".join(lines), extra={"fields": fields})
    else:
        print("\n".join(lines), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy-agent", description="The deployment agent of this host."
    )
    parser.add_argument("--version", action="version", version=f"deploy-agent {__version__}")
    parser.add_argument("--config", type=Path, help="agent.yaml to use")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    parser.add_argument("--socket", type=Path, help="where the API listens")
    parser.add_argument("--verbose", action="store_true", help="log more")
    parser.add_argument(
        "--foreground", action="store_true", help="serve one agentctl: ask no source"
    )
    parser.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
