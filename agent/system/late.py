"""Modules that a library imports for what is seldom used, loaded when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any


def load_when_used(*names: str) -> None:
    """Let `import NAME` cost nothing until something of NAME is used.

    What is not there is left out, and what is loaded already is left alone.
    `from NAME import …` uses it. importlib.util.LazyLoader would do, but that of Python 3.11 loads
    a module when it is imported a second time.
    """
    for name in names:
        if name not in sys.modules and (spec := PathFinder.find_spec(name)):
            module = _Waiting(name)
            module.__spec__ = spec
            sys.modules[name] = module


class _Waiting(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)
