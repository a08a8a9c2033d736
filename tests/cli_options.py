"""The commands of agentctl with their options, as their parsers know them."""

from __future__ import annotations

import argparse
import importlib

from agent.cli.main import COMMANDS


def parser(command: str) -> argparse.ArgumentParser:
    """The parser of a command, without what main adds to each: --help and --socket."""
    found = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"agent.cli.{command}").add_arguments(found)
    return found


def options(command: str) -> set[str]:
    """The long and short options of a command."""
    return {name for action in parser(command)._actions for name in action.option_strings}


def arguments(command: str) -> set[str]:
    """Its arguments that are no options, in small letters."""
    actions = [action for action in parser(command)._actions if not action.option_strings]
    return {str(action.metavar or action.dest).lower() for action in actions}


ALL = tuple(COMMANDS)
