"""glibc's own functions, where Python has no call. Loaded with the first one: it takes 0.3 MB."""

from __future__ import annotations

import os
from typing import Any


def call(name: str, *numbers: int, place: str = "") -> None:
    """Call a function of whole numbers; raises OSError with errno where it gives no 0.

    place: what the error is about.
    """
    import ctypes  # imported here: an idle agent does without

    libc: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*numbers) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)


def try_call(name: str, *numbers: int) -> None:
    """The same where another libc may not have it; what it gives does not matter."""
    import ctypes  # as above

    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)
