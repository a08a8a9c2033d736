"""What runs a hook's script: found anew each time, as the kernel or AWS's agent would run it.

Executable or not, a script runs by the interpreter of its first line; without one a shell runs it.
So neither the release is changed, nor is a noexec mount in the way. Binaries are run themselves.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.model.appspec import Hook
from agent.model.errors import AgentError, Code, from_os_error

_HEAD_BYTES = 4096
_SHELLS = ("/bin/bash", "/bin/sh")  # scripts without a shebang are often written for bash


@dataclass(frozen=True, slots=True)
class Script:
    """path: absolute. argv: all of the command. shebang: its first line's words, or ()."""

    path: str
    argv: tuple[str, ...]
    shebang: tuple[str, ...]
    is_binary: bool
    has_crlf: bool


def find_script(tree: Path, location: str) -> Script:
    """The script at `location` in the release; blocks. Raises AgentError (HOOK_NOT_RUNNABLE).

    It has to be a regular file inside the release, whichever links lead to it.
    """
    path = os.path.normpath(os.path.join(tree, location.strip().lstrip("/")))
    head, mode = _read_head(tree, path, location)
    has_crlf = b"\r\n" in head
    if head.startswith(b"\x7fELF"):
        if not mode & 0o111:
            raise _not_runnable(
                location,
                "it is a binary without the executable bit",
                "Set the bit where the bundle is built: chmod +x, or git update-index --chmod=+x",
            )
        return Script(path, (path,), (), is_binary=True, has_crlf=False)
    shebang = _shebang(head, location)
    if not shebang:
        shell = next((each for each in _SHELLS if os.path.exists(each)), _SHELLS[-1])
        return Script(path, (shell, path), (), is_binary=False, has_crlf=has_crlf)
    if not os.path.exists(shebang[0]):
        raise _not_runnable(
            location,
            f"its interpreter {shebang[0]} does not exist on this host",
            f"Install {shebang[0]}, or correct the script's first line",
        )
    return Script(path, (*shebang, path), shebang, is_binary=False, has_crlf=has_crlf)


def check_scripts(tree: Path, hooks: Iterable[Hook]) -> list[str]:
    """What keeps hooks from being run at all, for plan; blocks."""
    problems = []
    for hook in hooks:
        try:
            find_script(tree, hook.location)
        except AgentError as error:
            problems.append(f"{hook.event}: {error.message}. {error.remedy}")
    return list(dict.fromkeys(problems))


def _shebang(head: bytes, location: str) -> tuple[str, ...]:
    """Interpreter and at most one argument, as execve(2) cuts them."""
    line = head.split(b"\n", 1)[0]
    if not line.startswith(b"#!"):
        return ()
    if line.endswith(b"\r"):
        raise _not_runnable(
            location,
            "it has Windows line ends (CRLF), so its interpreter would be"
            f" {line[2:].strip(b' ' + bytes([9])).decode(errors='replace')!r}",
            "Convert it: dos2unix, or `*.sh text eol=lf` in .gitattributes",
        )
    words = tuple(os.fsdecode(word) for word in line[2:].strip(b" \t").split(None, 1))
    if words and not words[0].startswith("/"):
        raise _not_runnable(
            location,
            f"its interpreter {words[0]} is not an absolute path",
            f"Begin the script with: #!/usr/bin/env {words[0]}",
        )
    return words


def _read_head(tree: Path, path: str, location: str) -> tuple[bytes, int]:
    """The first bytes and the mode of a regular file inside `tree`."""
    root, real = os.path.realpath(tree), os.path.realpath(path)
    if os.path.commonpath((root, real)) != root:
        raise _not_runnable(
            location, "it leads out of the release", "Put the script into the bundle, as a file"
        )
    try:
        descriptor = _open_below(root, os.path.relpath(real, root))
    except FileNotFoundError as error:
        raise _not_runnable(location, "the release has no such file", _suggestion(path)) from error
    except OSError as error:
        raise from_os_error(error, f"run {location}", code=Code.HOOK_NOT_RUNNABLE) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_runnable(
                location, "it is not a file", "Name a script, not a folder, in the appspec"
            )
        return os.read(descriptor, _HEAD_BYTES), mode
    finally:
        os.close(descriptor)


def _open_below(root: str, path: str) -> int:
    """Open a file below `root`, following no link at all; raises OSError."""
    *folders, name = path.split("/")
    with contextlib.ExitStack() as opened:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, folder)
        for each in folders:
            folder = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            opened.callback(os.close, folder)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)


def _suggestion(path: str) -> str:
    """A file that is there under a name in another case; it runs on some developers' machines."""
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        for each in os.listdir(folder):
            if each.lower() == name.lower():
                return f"Correct the name in the appspec: {each} is there"
    return "Put the script into the bundle, or correct its location in the appspec"


def _not_runnable(location: str, cause: str, remedy: str) -> AgentError:
    return AgentError(f"cannot run {location}: {cause}", code=Code.HOOK_NOT_RUNNABLE, remedy=remedy)
