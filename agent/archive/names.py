"""Which names an entry may have: the rules that keep every path inside the release.

Source of the rules: PEP 706 (hints for further verification), the zip slip reports of 2018, and
CVE-2025-4517 and its kin, all of which went through path resolution: nothing is resolved here,
what is not plain is refused.
"""

from __future__ import annotations

import re
import unicodedata

from agent.archive.refusals import refused, shown
from agent.model.errors import AgentError

MAX_COMPONENT_BYTES = 255  # NAME_MAX
MAX_PATH_BYTES = 4096  # PATH_MAX

_PART = r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f-\x9f]+"  # not . or .., no control characters
_PLAIN = re.compile(rf"(?![A-Za-z]:){_PART}(?:/{_PART})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_RELATIVE = "Build the bundle from inside its folder, so that all names are relative to it."


def clean(name: str) -> str:
    """The path below the release that an entry's name means; "" for the root itself.

    A leading ./ and the slash at the end of a folder's name are dropped. Raises AgentError
    (BUNDLE_REFUSED) for every name that is not a plain relative path.
    """
    path = name.removesuffix("/")
    while path.startswith("./"):
        path = path[2:]
    if path == "." or (name.startswith("./") and not path):
        return ""
    if not _PLAIN.fullmatch(path):
        raise _explained(name, path)
    if len(path) > MAX_COMPONENT_BYTES // 4:  # in bytes it may be four times as long
        encoded = path.encode()
        if len(encoded) > MAX_PATH_BYTES:
            raise refused(name, f"has a path of more than {MAX_PATH_BYTES} bytes")
        if any(len(part) > MAX_COMPONENT_BYTES for part in encoded.split(b"/")):
            raise refused(name, f"has a name of more than {MAX_COMPONENT_BYTES} bytes in it")
    return path


def is_skipped(path: str) -> bool:
    """Whether macOS put it there beside the files: __MACOSX/, .DS_Store, AppleDouble ._*."""
    if "/._" not in path and not path.startswith(("._", "__MACOSX", ".DS_Store")):
        return path.endswith("/.DS_Store")
    name = path.rpartition("/")[2]
    return name.startswith("._") or name == ".DS_Store" or path.split("/", 1)[0] == "__MACOSX"


def folded(path: str) -> str:
    """The form in which two spellings of one path are equal (Unicode NFC)."""
    return unicodedata.normalize("NFC", path)


def parent(path: str) -> str:
    """The folder that a path lies in; "" for the root."""
    return path.rpartition("/")[0]


def link_path(path: str, target: str) -> str:
    """The path below the release that a link at `path` points to; "" for the root itself.

    Only leading .. are followed: they climb real folders, so that the text and the kernel agree.
    Raises AgentError (BUNDLE_REFUSED) for a target that is absolute or leaves the release.
    """
    remedy = "Use a relative target inside the bundle, or make the link in a hook."
    seen = shown(target)
    if target == "" or target.startswith("/"):
        raise refused(path, f"is a link to {seen}, which is not a relative path", remedy)
    if _CONTROL.search(target) or len(target.encode()) >= MAX_PATH_BYTES:
        raise refused(path, f"is a link to {seen}, which is not a path", remedy)
    folder = path.split("/")[:-1]
    parts = [part for part in target.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        if not folder:
            raise refused(path, f"is a link to {seen}, outside the bundle", remedy)
        folder.pop()
        parts.pop(0)
    if ".." in parts:
        raise refused(path, f"is a link to {seen}, which goes down and up again", remedy)
    return "/".join(folder + parts)


def _explained(name: str, path: str) -> AgentError:
    """The error for a name that is not plain."""
    if not path:
        return refused(name, "has an empty name" if not name else "has an absolute name")
    if "\0" in path:
        return refused(name, "has a NUL in its name")
    if "\\" in path:
        return refused(
            name,
            "has a backslash in its name",
            "Build the bundle with a tool that writes / between folders.",
        )
    if _CONTROL.search(path):
        return refused(name, "has a control character in its name")
    if path.startswith("/"):
        return refused(name, "has an absolute name", _RELATIVE)
    parts = path.split("/")
    if ".." in parts:
        return refused(name, "has .. in its name", _RELATIVE)
    if "." in parts or "" in parts:
        return refused(name, "has an empty part or a . in its name", _RELATIVE)
    return refused(name, "begins with a drive letter", _RELATIVE)
