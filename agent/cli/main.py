"""agentctl: finds the command, runs it, and turns every error into a sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys

import agent
from agent.cli import exits, output
from agent.cli.exits import Exit
from agent.model.errors import AgentError, Code

# One module per command in this folder. A command is imported when it is asked for, and only
# then: importing them all would cost `agentctl status` most of its 50 ms.
COMMANDS = {
    "status": "what serves here, what runs, and how the last deployment went",
    "deploy": "deploy a bundle and follow it to its end",
    "plan": "list everything that a bundle would change, and change nothing",
    "lint": "check a bundle, an appspec or a configuration file",
    "bundle": "make a bundle of a folder, the same bytes each time",
    "push": "publish a bundle to an environment, or put an earlier version back there",
    "promote": "put the version of one environment before the hosts of the next one",
    "releases": "show which version of an application is where",
    "diff": "show what differs between what two environments desire",
    "history": "list the deployments of this host",
    "logs": "show what a deployment and its hooks said",
    "rollback": "deploy the previous revision again, or the one named by --to",
    "retry": "deploy again the revision that was undone",
    "abort": "stop the running deployment and undo it",
    "hold": "let no deployment begin until unhold",
    "unhold": "let deployments begin again",
    "drain": "keep an application out of Consul's traffic until undrain",
    "undrain": "let an application into Consul's traffic again",
    "doctor": "look whether this host is fit for deployments, also where the agent is dead",
    "key": "make, show and use the keys that sign manifests and bundles",
    "version": "print the versions of agentctl and of the running agent",
}


def main(argv: list[str] | None = None) -> int:
    """Run agentctl; the entry point. Gives the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale cannot spell
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return Exit.CLOSED_PIPE  # | head has what it wanted
    except OSError as error:  # of our own output: the client translates those of the socket
        _discard_output()
        print(f"agentctl: cannot go on: {error}", file=sys.stderr)
        return Exit.FAILED


def _run(argv: list[str]) -> int:
    top = _top_parser()
    given = top.parse_args(argv)
    if given.command is None:
        top.print_help()
        return Exit.USAGE
    if given.command not in COMMANDS:
        top.error(_unknown(given.command))
    module = importlib.import_module(f"agent.cli.{given.command}")
    parser = argparse.ArgumentParser(
        prog=f"agentctl {given.command}",
        description=_sentence(COMMANDS[given.command]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("--socket", metavar="PATH", default=given.socket, help=_SOCKET_HELP)
    args = parser.parse_args(given.rest)
    try:
        return int(module.run(args))
    except AgentError as error:
        output.print_error(error, as_json=getattr(args, "json", False))
        return exits.for_error(given.command, error)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 the last net: no traceback is thrown at a user
        defect = _internal(error)
        output.print_error(defect, as_json=getattr(args, "json", False))
        return exits.for_error(given.command, defect)


_SOCKET_HELP = "the agent's socket (default: $DEPLOY_AGENT_SOCKET, else where the agent listens)"


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {words}" for name, words in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="agentctl",
        usage="agentctl [--socket PATH] COMMAND ...",
        description="Ask and command deploy-agent on this host.",
        epilog=f"commands:\n{commands}\n\nMore on one: agentctl COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--socket", metavar="PATH", help=_SOCKET_HELP)
    parser.add_argument("--version", action="version", version=f"agentctl {agent.__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _unknown(command: str) -> str:
    import difflib  # imported here: only a misspelt command needs it

    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "see agentctl --help"
    return f"there is no command {command!r}: {hint}"


def _internal(error: Exception) -> AgentError:
    if os.environ.get("DEPLOY_AGENT_DEBUG"):
        import traceback  # imported here: only a defect needs it

        traceback.print_exception(error)
    return AgentError(
        f"internal error: {type(error).__name__}: {error}",
        code=Code.INTERNAL,
        remedy="Report it with the output of: DEPLOY_AGENT_DEBUG=1 agentctl ...",
    )


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def _discard_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's exit says nothing."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


if __name__ == "__main__":
    sys.exit(main())
