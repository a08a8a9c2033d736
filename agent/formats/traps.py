"""What AWS's agent accepts without a word although it cannot be what was meant.

Seen in public appspecs: events beside `hooks:` instead of below it, scripts for events that run
none, commands instead of scripts, variables that nobody expands, folders shared with others.
"""

from __future__ import annotations

import itertools
import re

from agent.formats import findings, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import LifecycleEvent

SECTIONS = ("version", "os", "files", "permissions", "hooks", "file_exists_behavior", "services")
NEVER_RUN = ("Install", "DownloadBundle", "AllowTraffic", "BlockTraffic")

_MOST_COMPARED = 100  # unknown keys at the top level: each comparison takes time

# Where an unknown key belongs. Keys of an entry of `files` are ignored by AWS, not refused.
_MISPLACED = {
    "overwrite": "write file_exists_behavior: OVERWRITE at the top level",
    "file_exists_behavior": "write it at the top level",
    "owner": "write it in an entry of permissions",
    "group": "write it in an entry of permissions",
    "mode": "write it in an entry of permissions",
    "permissions": "write it at the top level",
    "hooks": "write it at the top level",
}

_COMMANDS = (
    "sh bash dash zsh sudo su env exec eval source cd rm cp mv mkdir ln chmod chown echo test cat "
    "systemctl service supervisorctl docker docker-compose npm yarn pnpm node pm2 python python3 "
    "pip pip3 ruby bundle php composer java perl apt apt-get yum dnf nginx kill pkill killall "
    "curl wget touch export nohup forever make tar unzip git"
)
_SHELL_SIGNS = re.compile(r"&&|\|\||[|;<>`]|\$\(| &$")
_VARIABLE = re.compile(r"\$\{[^}]*\}|\$\w+|%\w+%|\{\{.*?\}\}")

_SHARED = (
    "/ /bin /boot /dev/shm /etc /home /lib /media /mnt /opt /root /run /sbin /srv /tmp /usr "
    "/usr/bin /usr/lib /usr/local /usr/local/bin /usr/local/lib /usr/sbin /usr/share /var "
    "/var/lib /var/log /var/run /var/tmp"
)


def check_top_level(top: dict[str, object], found: Findings) -> None:
    """Events that are not below hooks, and keys that are nearly a section's name."""
    unknown = [key for key in top if key not in SECTIONS and not key.startswith("x-")]
    for number, key in enumerate(unknown):
        if key in set(LifecycleEvent) or key in NEVER_RUN:
            where = "beside hooks, not below it" if "hooks" in top else "at the top level"
            message = f"is a lifecycle event {where}: its scripts would never run"
            found.error((key,), message, "indent it below hooks:", at_key=True)
        elif number < _MOST_COMPARED:
            near = wording.did_you_mean(key, SECTIONS)
            if near:
                found.warn((key,), "unknown key, which is ignored", near, at_key=True)


def misplaced(key: str) -> str:
    """Where a key belongs that stands in an entry of `files` and is ignored there, or ""."""
    return _MISPLACED.get(key.casefold(), "")


def looks_like_command(location: str) -> bool:
    """Whether a hook's location is a shell command and not the path of a script."""
    words = location.split()
    if len(words) < 2:
        return False
    first = words[0].rpartition("/")[2] if words[0].startswith("/") else words[0]
    return first in _COMMANDS.split() or bool(_SHELL_SIGNS.search(location))


def variable_in(path: str) -> str:
    """The first thing in a path that looks like a variable, or ""."""
    match = _VARIABLE.search(path)
    return wording.shortened(match[0]) if match else ""


def is_shared_folder(destination: str) -> bool:
    """Whether a folder is not one application's own: /tmp, /opt, somebody's home."""
    parent, _, last = destination.rpartition("/")
    return destination in _SHARED.split() or (parent == "/home" and last != "")


def shared_folder(destination: str) -> tuple[str, str]:
    """Message and suggestion for a folder's content that goes into a shared folder."""
    message = f"{destination} is shared with others, and the content of a whole folder goes into it"
    return message, "give the application a folder of its own"


def check_own_dashes(path: Path, value: object, needed: str, found: Findings) -> None:
    """Keys of one entry that each have a dash of their own: `- location: a`, `- timeout: 5`."""
    above: dict[str, object] = {}
    first = 0
    for index, entry in findings.entries(value):
        is_misspelt = bool(wording.closest(needed, itertools.islice(entry, 20)))
        fits = needed in above and needed not in entry and not set(entry) & set(above)
        if fits and entry and not is_misspelt:
            keys = wording.listed([wording.name(key) for key in itertools.islice(entry, 3)], "and")
            hint = f"take away the dash before {keys}: it belongs to the entry above"
            found.error((*path, index), f"has no {needed}", hint)
            found.hush((*path, first))
            above = above | entry
        else:
            above, first = entry, index
