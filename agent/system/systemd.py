"""systemd, through systemctl and systemd-run: their command lines are its stable interface.

Both speak to PID 1 by its private socket as root, so neither needs a D-Bus daemon for what is
used here. systemctl(1), systemd-run(1), org.freedesktop.systemd1(5) for the properties.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import AgentError, Code
from agent.system import process
from agent.system.process import SEARCH_PATH, Command, Completed

_ASK_SECONDS = 30.0
_GRACE_SECONDS = 2.0
_PAUSES = (0.2, 1.0)  # PID 1 does not answer while it is upgraded (daemon-reexec)

_NUMBERS = ("main_pid", "exit_kind", "exit_status", "main_began", "main_ended", "restarts")
_PROPERTIES = {
    "Id": "name",
    "Type": "kind",
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "Result": "result",
    "MainPID": "main_pid",
    "ExecMainCode": "exit_kind",
    "ExecMainStatus": "exit_status",
    "ConditionResult": "condition",
    "ExecMainStartTimestampMonotonic": "main_began",
    "ExecMainExitTimestampMonotonic": "main_ended",
    "NRestarts": "restarts",
    "InvocationID": "invocation",
    "ControlGroup": "cgroup",
    "FragmentPath": "fragment",
    "UnitFileState": "file_state",
    "NeedDaemonReload": "needs_reload",
}


@dataclass(frozen=True, slots=True)
class UnitState:
    """One unit as PID 1 sees it, with systemd's own words.

    kind:       Type= of a service; "" for other units.
    load:       loaded, not-found, bad-setting, masked, …
    active:     active, reloading, inactive, failed, activating, deactivating.
    result:     success, exit-code, signal, timeout, start-limit-hit, oom-kill, …
    exit_kind:  si_code of waitid(2): 1 exited, 2 killed, 3 dumped; 0 while it has not ended.
    exit_status: exit code or signal number of the main process, by exit_kind.
    condition:  "no" if a Condition…= kept it from its last start, or it was never started.
    main_began, main_ended: of the main process, in microseconds of CLOCK_MONOTONIC; 0 is never.
    invocation: a new one for every start.
    cgroup:     its path in the cgroup hierarchy, "" while nothing of it runs.
    fragment:   the path of its unit file, "" where there is none.
    file_state: enabled, disabled, static, …; "" where there is no unit file. PID 1 keeps it for as
                long as it knows the unit: ask enablement() for what is so.
    """

    name: str
    kind: str = ""
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    main_pid: int = 0
    exit_kind: int = 0
    exit_status: int = 0
    condition: str = ""
    main_began: int = 0
    main_ended: int = 0
    restarts: int = 0
    invocation: str = ""
    cgroup: str = ""
    fragment: str = ""
    file_state: str = ""
    needs_reload: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there is such a unit at all."""
        return self.load != "not-found"

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither ended nor is about to."""
        return self.active in ("active", "reloading", "activating")

    def __str__(self) -> str:
        text = f"{self.name} is {self.active} ({self.sub})"
        return text if self.result in ("", "success") else f"{text}, result {self.result}"


@dataclass(frozen=True, slots=True)
class TransientUnit:
    """A unit that exists while it is needed (systemd-run(1)). properties: as in unit files.

    description: one line. PID 1 keeps the unit as a file, which it reads again on a reload, and
    systemd-run's own description is the command line: its line ends would begin settings there.
    """

    name: str
    description: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    properties: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class NotAtBoot:
    """Why a unit does not start at boot, and what to do."""

    cause: str
    remedy: str


def not_at_boot(name: str, enablement: str) -> NotAtBoot | None:
    """Whether somebody took back that a unit starts at boot; None: nobody did.

    Every other enablement is left as it is: without an [Install] section (static), made by a
    generator, or by way of another unit (indirect), a unit starts when something else wants it.
    """
    match enablement:
        case "disabled":
            remedy = f"Let it start at boot: systemctl enable {name}"
        case "masked" | "masked-runtime":
            remedy = f"Let it start again: systemctl unmask {name}; systemctl enable {name}"
        case _:
            return None
    return NotAtBoot(f"{name} is {enablement}: a reboot would leave it down", remedy)


def is_booted() -> bool:
    """Whether systemd is this host's init: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


class Systemd:
    """The host's systemd; only root may change units through it."""

    async def state(self, name: str) -> UnitState:
        """One unit's state; a unit that does not exist has load "not-found"."""
        return (await self.states([name]))[name]

    async def states(self, names: Iterable[str]) -> dict[str, UnitState]:
        """The states of units by the names that were asked for; raises AgentError."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        argv = ["systemctl", "show", "--no-pager", "-p", ",".join(_PROPERTIES), "--", *wanted]
        answer = await process.capture(argv, timeout_seconds=_ASK_SECONDS)
        for pause in _PAUSES:
            if answer.code == 0:
                break
            await asyncio.sleep(pause)
            answer = await process.capture(argv, timeout_seconds=_ASK_SECONDS)
        if answer.code != 0:
            raise _failed(f"ask systemd about {', '.join(wanted)}", answer.err)
        # one block for each name, in the order asked; within a block systemd has its own order
        blocks = answer.out.split("\n\n")
        return {name: _parse_state(name, block) for name, block in zip(wanted, blocks, strict=True)}

    async def is_stopping(self) -> bool:
        """Whether the host is being shut down or rebooted."""
        answer = await process.capture(
            ["systemctl", "is-system-running"], timeout_seconds=_ASK_SECONDS
        )
        return answer.out == "stopping"

    async def start(self, name: str, *, timeout_seconds: float) -> None:
        """Start a unit, and wait for it as its Type= says; raises AgentError."""
        await self._change("start", name, timeout_seconds)

    async def restart(self, name: str, *, timeout_seconds: float) -> None:
        """Stop a unit if it runs, and start it; raises AgentError."""
        await self._change("restart", name, timeout_seconds)

    async def tell(self, name: str, *, timeout_seconds: float) -> None:
        """Let a unit that runs read its configuration again (ExecReload=); raises AgentError."""
        await self._change("reload", name, timeout_seconds)

    async def signal_main(self, name: str, signal_name: str) -> None:
        """Send a signal to the main process of a unit; raises AgentError."""
        argv = ["systemctl", "kill", "--kill-who=main", "-s", signal_name, "--", name]
        completed, said = await self._run(argv, _ASK_SECONDS)
        if completed.exit_code != 0:
            raise _failed(f"send {signal_name} to {name}", said)

    async def stop(self, name: str, *, timeout_seconds: float) -> None:
        """Stop a unit; one that does not run is fine. Raises AgentError, also when time is up."""
        await self._change("stop", name, timeout_seconds)

    async def enablement(self, name: str) -> str:
        """What the disk says: enabled, disabled, static, masked, …; "" without a unit file."""
        argv = ["systemctl", "is-enabled", "--", name]
        said = (await process.capture(argv, timeout_seconds=_ASK_SECONDS)).out
        return "" if said == "not-found" else said.partition("\n")[0]

    async def enable(self, names: Sequence[str]) -> bool:
        """Start them at boot from now on; whether that changed anything. Raises AgentError.

        Then PID 1 reads its unit files again, or `systemctl status` would tell the old state.
        """
        said = await self._switch("enable", names)
        if said:
            await self.reload()
        return bool(said)

    async def disable(self, names: Sequence[str]) -> None:
        """Do not start them at boot any more, and reload once; raises AgentError."""
        if await self._switch("disable", names):
            await self.reload()

    async def reset_failed(self, name: str) -> None:
        """Forget that it failed, and how often it was started; no word where it had not."""
        await self._run(["systemctl", "reset-failed", "--", name], _ASK_SECONDS)

    async def kill(self, name: str, signal_name: str) -> None:
        """Send a signal to all processes of a unit; no word where there are none."""
        await self._run(["systemctl", "kill", "-s", signal_name, "--", name], _ASK_SECONDS)

    async def reload(self) -> None:
        """Let systemd read all unit files again (daemon-reload); raises AgentError."""
        completed, said = await self._run(["systemctl", "daemon-reload"], 90.0)
        if completed.exit_code != 0:
            raise _failed("reload the unit files", said)

    async def run(self, unit: TransientUnit, *, wait_seconds: float) -> Completed:
        """Start a transient unit; for Type=oneshot this waits for its end.

        The exit code is systemd-run's own: what became of the unit is asked by state(). When the
        caller is cancelled, only systemd-run ends, and the unit goes on. Raises AgentError where
        the unit could not be started at all, with code CONFLICT where there is one of that name.
        """
        argv = ["systemd-run", "--quiet", f"--unit={unit.name}"]
        argv.append(f"--description={unit.description}")
        argv += [f"--property={name}={value}" for name, value in unit.properties]
        argv += [f"--setenv={name}={value}" for name, value in unit.environment.items()]
        argv += ["--", *(escape(word) for word in unit.argv)]
        completed, said = await self._run(argv, wait_seconds)
        if completed.exit_code != 0:
            if "was already loaded" in said:
                raise _failed(f"start {unit.name}", said, code=Code.CONFLICT)
            if not (await self.state(unit.name)).is_known:
                raise _failed(f"start {unit.name}", said)
        return completed

    async def _switch(self, verb: str, names: Sequence[str]) -> str:
        """What it says: a line for each link that it made or removed."""
        argv = ["systemctl", "--no-reload", verb, "--", *names]
        completed, said = await self._run(argv, _ASK_SECONDS)
        if completed.exit_code != 0:
            raise _failed(f"{verb} {', '.join(names)}", said)
        return said

    async def _change(self, verb: str, name: str, timeout_seconds: float) -> None:
        completed, said = await self._run(["systemctl", verb, "--", name], timeout_seconds)
        if completed.timed_out:
            raise _failed(f"{verb} {name}", f"it took longer than {timeout_seconds:g} s")
        if completed.exit_code != 0:
            raise _failed(f"{verb} {name}", said)

    async def _run(self, argv: Sequence[str], timeout_seconds: float) -> tuple[Completed, str]:
        """Run a client of PID 1: cancelling ends the client, and never what it asked for."""
        completed = await process.run(
            Command(tuple(argv), {"PATH": SEARCH_PATH, "LANG": "C.UTF-8"}),
            timeout_seconds=timeout_seconds,
            grace_seconds=_GRACE_SECONDS,
        )
        return completed, completed.tail.decode(errors="replace").strip()


def verify_blocking(paths: Sequence[Path]) -> list[str]:
    """What systemd-analyze(1) finds wrong in unit files, a line each; blocks.

    Raises AgentError where it does not answer.
    """
    argv = ["systemd-analyze", "verify", "--man=no", "--", *map(str, paths)]
    answer = process.capture_blocking(argv, timeout_seconds=_ASK_SECONDS)
    if answer.code not in (0, 1):  # 1: it found something
        raise _failed("verify unit files", answer.err)
    return [line for line in answer.err.splitlines() if line.strip()]


def escape(word: str) -> str:
    """A word of argv so that a transient unit's process gets it as it is.

    systemd expands $ in command lines (systemd.service(5), "Command lines"), also those of
    transient units; `--expand-environment=no` came with version 254 only.
    """
    return word.replace("$", "$$")


def _parse_state(name: str, block: str) -> UnitState:
    found = dict(line.partition("=")[::2] for line in block.splitlines())
    fields: dict[str, object] = {"name": found.get("Id") or name}
    for key, field in _PROPERTIES.items():
        text = found.get(key, "")
        if field in _NUMBERS:
            fields[field] = int(text) if text.isdigit() else 0
        elif field == "needs_reload":
            fields[field] = text == "yes"
        elif field != "name":
            fields[field] = text
    return UnitState(**fields)  # type: ignore[arg-type]


def _failed(doing: str, said: str, *, code: Code = Code.UNIT_FAILED) -> AgentError:
    lines = [line for line in said.splitlines() if line.strip()]
    return AgentError(
        f"cannot {doing}: {lines[0] if lines else 'systemd gave no reason'}",
        code=code,
        details=tuple(lines[1:]),
    )
