"""Say what is wrong with a unit: how it ended, how often, and its last words."""

from __future__ import annotations

import dataclasses
import signal
import time

from agent.model.errors import AgentError, Code
from agent.system.systemd import UnitState
from agent.units import lines
from agent.units.record import Started

# of systemd.exec(5), "Process Exit Codes": what systemd itself could not do before the program ran
_NOT_RUN = {
    200: "its working directory could not be entered",
    203: "its program could not be executed",
    209: "its standard output could not be set up",
    216: "its group does not exist",
    217: "its user does not exist",
    226: "its namespaces could not be set up (ProtectSystem=, ReadWritePaths=, …)",
    238: "its StateDirectory= could not be set up",
    240: "its LogsDirectory= could not be set up",
    243: "its credentials could not be set up",
}
_RESULTS = {
    "timeout": "it took longer than its unit file allows",
    "watchdog": "it did not answer systemd's watchdog in time",
    "oom-kill": "the kernel ended it for want of memory",
    "protocol": "it ended before it was ready, as its Type= wants it",
    "resources": "systemd could not set it up",
    "start-limit-hit": "it was started too often",
    "exec-condition": "its ExecCondition= kept it from starting",
}
_EXITED, _KILLED, _DUMPED = 1, 2, 3  # si_code of waitid(2)


def find_trouble(state: UnitState, started: Started, now: float) -> str:
    """Why a unit that was started does not run as it did then, "" if it does.

    now: in seconds since the epoch.
    """
    again = state.restarts - started.restarts
    seconds = max(0.0, now - started.at)
    if again > 0:
        times = again + (not is_up(state))
        if times == 1:
            return f"{how_it_ended(state)} within {seconds:.1f} s, and systemd started it again"
        return f"{how_it_ended(state)}, {times} times in {seconds:.1f} s (crash loop)"
    if is_up(state):
        if started.invocation and state.invocation != started.invocation:
            return f"it was restarted by somebody else, within {seconds:.1f} s of its start"
        return ""
    if is_done(state) or _runs_again(state):
        return ""
    if not state.is_known:
        return "there is no such unit any more"
    if state.active == "activating" and not _is_between_starts(state):
        return f"it is still starting after {seconds:.1f} s ({state.sub})"
    if state.active == "inactive" and state.result == "success":
        if state.condition == "no":
            return "a Condition…= of it is not met, so systemd did not start it"
        if not state.exit_kind:
            return f"it was stopped by somebody else, within {seconds:.1f} s of its start"
    if state.main_ended > state.main_began > 0:
        return f"{how_it_ended(state)} after {(state.main_ended - state.main_began) / 1e6:.1f} s"
    return f"{how_it_ended(state)}, within {seconds:.1f} s of its start"


def find_fault(state: UnitState) -> str:
    """Why a unit that should run does not, in one line with its name; "" if it does."""
    if is_up(state) or is_done(state) or _runs_again(state):
        return ""
    if not state.is_known:
        return f"there is no {state.name} on this host"
    text = f"{state.name} is {state.active} ({state.sub})"
    if state.active == "failed" or _is_between_starts(state):
        text += f": {how_it_ended(state)}"
    return f"{text}, restarted {state.restarts} times" if state.restarts else text


def is_up(state: UnitState) -> bool:
    """Whether it was started and is ready."""
    return state.active in ("active", "reloading")


def _runs_again(state: UnitState) -> bool:
    """Whether it is one that runs once, and does: a timer may start it at any time."""
    return state.kind == "oneshot" and state.active == "activating" and state.sub == "start"


def has_begun(state: UnitState) -> bool:
    """Whether a process of it was run, or it is being started."""
    return bool(state.exit_kind) or state.active in ("activating", "failed")


def is_done(state: UnitState) -> bool:
    """Whether it is one that runs once (Type=oneshot), and did so with success."""
    return state.kind == "oneshot" and state.active == "inactive" and state.result == "success"


def how_it_ended(state: UnitState) -> str:
    """How its main process ended, as far as systemd still knows: "it ended with exit code 3"."""
    if state.result in _RESULTS:
        return _RESULTS[state.result]
    if state.exit_kind == _EXITED:
        code = state.exit_status
        cause = f": {_NOT_RUN[code]}" if code in _NOT_RUN else ""
        return f"it ended with exit code {code}{cause}"
    if state.exit_kind in (_KILLED, _DUMPED):
        try:
            name = signal.Signals(state.exit_status).name
        except ValueError:
            name = f"signal {state.exit_status}"
        return f"it was ended by {name}{' (core dumped)' * (state.exit_kind == _DUMPED)}"
    if state.result == "exit-code":
        return "one of its commands failed (ExecStartPre=, ExecStartPost=)"
    return "it ended"


async def make_error(
    doing: str, state: UnitState, started: Started, *, cause: str = ""
) -> AgentError:
    """The failure to do something ("start x.service"), with what the unit wrote since its start.

    cause: "" for what find_trouble() says.
    """
    unit, now = state.name, time.time()
    written = await lines.read_last(unit, started.at)
    if not state.exit_kind and written.exit_kind:  # it runs again: its end is in the journal only
        state = dataclasses.replace(
            state, exit_kind=written.exit_kind, exit_status=written.exit_status
        )
    cause = cause or find_trouble(state, started, now)
    return AgentError(
        f"cannot {doing}: {cause}",
        code=Code.UNIT_FAILED,
        details=(str(state), *written.texts),
        remedy=f"Read all that it said: journalctl -u {unit} --since @{int(started.at)}",
        where=unit,
    )


def _is_between_starts(state: UnitState) -> bool:
    return state.sub.startswith("auto-restart")
