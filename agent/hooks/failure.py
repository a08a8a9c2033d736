"""Why a hook failed, in words that a reader can act on."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from agent.hooks.backend import HookEnd
from agent.hooks.scene import HookScene
from agent.hooks.script import Script
from agent.model.appspec import Hook
from agent.model.errors import AgentError, Code
from agent.system import processes
from agent.system.deployment_log import HookOutput
from agent.system.process import Command
from agent.system.users import Account

_NOT_EXECUTED = (2, 126, 127)  # 2: a shell took it for a script


@dataclass(frozen=True, slots=True)
class Attempt:
    """A hook with all that running it takes.

    ordinal: among the hooks of its event. seconds: of its tries together.
    """

    where: str
    ordinal: int
    hook: Hook
    script: Script
    command: Command
    account: Account
    tries: int = 0
    seconds: float = 0.0


def explain(attempt: Attempt, end: HookEnd, output: HookOutput, scene: HookScene) -> AgentError:
    """The error of a hook that did not succeed; blocks (it looks at the script)."""
    hook, completed = attempt.hook, end.completed
    tried = f" on {attempt.tries} tries" if attempt.tries > 1 else ""
    code = Code.HOOK_TIMEOUT
    if completed.timed_out:
        cause = f"it did not end within {hook.timeout_seconds:g} s, and was ended"
    elif end.asks_for_retry:
        cause = f"it asked to be tried again{tried}, until its {hook.timeout_seconds:g} s were over"
    else:
        code = Code.HOOK_FAILED
        cause = f"{completed}{tried} after {attempt.seconds:.1f} s as user {attempt.account.name}"
    details = [
        f"command: {shlex.join(attempt.command.argv)}",
        f"user: {attempt.account.name}; {completed}; {attempt.seconds:.1f} s",
        *(f"not even KILL ended: {processes.describe(each)}" for each in end.left_over),
        *(f"hint: {hint}" for hint in (*end.hints, *_hints(attempt, end))),
        *(f"output: {line}" for line in output.last_lines()),
    ]
    return AgentError(
        f"cannot run {hook.location}: {cause}",
        code=code,
        details=tuple(details),
        remedy=f"Read all of its output: less {scene.log.path}",
        where=attempt.where,
    )


def _hints(attempt: Attempt, end: HookEnd) -> Iterator[str]:
    code = end.completed.exit_code
    script = attempt.script
    if code == 126:
        yield _found_but_not_executable(script)
    if code == 127:
        yield _not_found(script, attempt.command.env["PATH"])
    if code and script.has_crlf:
        yield f"{attempt.hook.location} has Windows line ends (CRLF); convert it with dos2unix"
    if code in _NOT_EXECUTED and script.is_binary and _is_foreign(script.path):
        yield f"it was built for another kind of machine than this host's {platform.machine()}"
    if code and attempt.command.user is not None:
        yield from _unreachable(script.path, attempt.command.user)
    if end.completed.signal is not None and not end.completed.timed_out:
        yield "look for what sent the signal; for KILL it may be the kernel, out of memory: dmesg"


def _found_but_not_executable(script: Script) -> str:
    if script.is_binary and os.statvfs(script.path).f_flag & os.ST_NOEXEC:
        return "126: the release lies on a file system that is mounted noexec"
    return (
        "126: a command was found, but could not be executed: it is a folder, lacks the executable"
        " bit, is built for another machine, or lies on a noexec mount"
    )


def _not_found(script: Script, search_path: str) -> str:
    words = [word for part in script.shebang for word in part.split()]
    if len(words) > 1 and os.path.basename(words[0]) == "env":
        name = next(
            (word for word in words[1:] if not word.startswith("-") and "=" not in word), ""
        )
        if name and shutil.which(name, path=search_path) is None:
            return (
                f"127: the script's first line wants {name}, which is not on the PATH {search_path}"
            )
    return f"127: a command was not found on the PATH {search_path}"


def _is_foreign(path: str) -> bool:
    """Whether e_machine of its ELF header is not that of the agent's own interpreter."""
    machines = set()
    for each in (path, "/proc/self/exe"):
        with open(each, "rb") as binary:
            machines.add(binary.read(20)[18:])
    return len(machines) > 1


def _unreachable(path: str, user: Account) -> Iterator[str]:
    """The first folder on the way to the script that its user may not enter, by mode bits."""
    if user.uid == 0:
        return
    parts = path.split("/")
    for count in range(2, len(parts) + 1):
        place = "/".join(parts[:count])
        needed = 0o4 if count == len(parts) else 0o1
        seen = os.stat(place)
        if seen.st_uid == user.uid:
            bits = seen.st_mode >> 6
        else:
            bits = seen.st_mode >> 3 if seen.st_gid in user.groups else seen.st_mode
        if not bits & needed:
            verb = "read" if count == len(parts) else "enter"
            yield f"user {user.name} may not {verb} {place}"
            return
