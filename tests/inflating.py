"""Inflating by one of the two libraries, as on a host that has it or has not."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

import pytest

from agent.archive import inflate

LIBRARIES = ("isal", "zlib")


@contextlib.contextmanager
def by(name: str) -> Iterator[None]:
    """Without python3-isal for zlib. Skips where it is to be used and is not there."""
    if name == "isal" and importlib.util.find_spec("isal") is None:
        pytest.skip("there is no isal for this platform")
    with pytest.MonkeyPatch.context() as patch:
        if name == "zlib":
            patch.setitem(sys.modules, "isal", None)
        inflate.library.cache_clear()
        try:
            assert inflate.library().name == name
            yield
        finally:
            inflate.library.cache_clear()
