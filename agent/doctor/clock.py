"""The clock: signatures, expiry dates and the order of deployments depend on it."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host

_SET_BEFORE = 1704067200  # 2024: no host has this agent and such a date
# struct timex of adjtimex(2): modes, offset, freq, maxerror, …; 208 bytes on 64-bit Linux
_TIMEX = struct.Struct("@Illl")
_TIMEX_BYTES = 256
# what timedatectl(1) calls "System clock synchronized" (systemd's src/basic/time-util.c)
_SYNCHRONIZED_MICROSECONDS = 16_000_000
_REMEDY = "Synchronize it: apt-get install systemd-timesyncd; in a container, on its host"


def look(_host: Host) -> Iterator[Finding]:
    """Ask the kernel, which the time services tell."""
    if time.time() < _SET_BEFORE:
        yield finding.problem(f"it says {time.strftime('%Y-%m-%d %H:%M')}", _REMEDY)
        return
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        yield finding.unknown("the kernel does not say whether it is synchronized", "")
        return
    error = _TIMEX.unpack_from(timex)[3]
    if error < _SYNCHRONIZED_MICROSECONDS:
        yield finding.ok(f"synchronized, at most {error / 1e6:.3f} s off")
    else:
        yield finding.warning("it is not synchronized", _REMEDY)
