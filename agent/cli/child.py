"""Starting another part of this same agent as a process of its own."""

from __future__ import annotations

import os
import sys

import agent

# Isolated as we are ourselves; else -P keeps a folder called agent in the working directory from
# being taken for ours.
_FLAGS = ("-I",) if sys.flags.isolated else ("-P",)
_PROGRAM = """
import sys
from importlib import import_module
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
sys.exit(import_module(sys.argv.pop(1)).main())
"""


def argv(module: str) -> list[str]:
    """The command line that runs main() of a module of ours; its own arguments come behind it."""
    return [sys.executable, *_FLAGS, "-c", _PROGRAM, _root(), module]


def _root() -> str:
    """The folder in which this same `agent` lies: a checkout, site-packages, or the .deb's own."""
    return os.path.dirname(os.path.dirname(os.path.abspath(agent.__file__)))
