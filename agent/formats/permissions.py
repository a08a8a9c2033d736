"""The `permissions` section of an appspec: modes, ACLs, SELinux contexts.

Source of the rules: AWS CodeDeploy user guide, "AppSpec 'permissions' section".
"""

from __future__ import annotations

import posixpath
import re

from agent.formats import findings, traps, wording
from agent.formats.findings import Findings
from agent.formats.yamldoc import Path
from agent.model.appspec import AclEntry, Permission

_BOTH = ("file", "directory")
_KINDS = {
    "u": "user",
    "user": "user",
    "g": "group",
    "group": "group",
    "m": "mask",
    "mask": "mask",
    "o": "other",
    "other": "other",
}
_SENSITIVITY = r"s[0-9]{1,4}"
_CATEGORY = r"c[0-9]{1,4}(?:\.c[0-9]{1,4})?"
_RANGE = re.compile(
    rf"{_SENSITIVITY}(?:-{_SENSITIVITY})?(?::{_CATEGORY}(?:,{_CATEGORY})*)?", re.ASCII
)


def build_permissions(value: object, found: Findings) -> tuple[Permission, ...]:
    """The section's entries, in the order of the file."""
    built = tuple(
        _permission(("permissions", index), entry, found)
        for index, entry in findings.entries(value)
    )
    _check_set_twice(built, found)
    return built


def _permission(path: Path, entry: dict[str, object], found: Findings) -> Permission:
    types = findings.texts(entry.get("type")) if entry.get("type") is not None else _BOTH
    permission = Permission(
        object=_object((*path, "object"), entry.get("object"), found),
        pattern=findings.text(entry.get("pattern")) or "**",
        excludes=findings.texts(entry.get("except")),
        types=tuple(each for each in _BOTH if each in types),
        owner=build_name((*path, "owner"), entry.get("owner"), found),
        group=build_name((*path, "group"), entry.get("group"), found),
        mode=build_mode((*path, "mode"), entry.get("mode"), found),
        acls=_acls((*path, "acls"), entry.get("acls"), types, found),
        context=_context((*path, "context"), entry.get("context"), found),
    )
    if not {"owner", "group", "mode", "acls", "context"} & set(entry):
        hint = "add owner, group, mode, acls or context"
        found.warn(path, "sets nothing", hint)
    if entry.get("type") == []:
        found.warn((*path, "type"), "is empty, so this entry applies to nothing", "take it away")
    for key, globs in (("pattern", (permission.pattern,)), ("except", permission.excludes)):
        for glob in globs:
            if "/" in glob:
                message = f"{wording.shown(glob)} matches nothing: only names are compared"
                found.warn((*path, key), message, "name the folder as object")
    return permission


def _object(path: Path, value: object, found: Findings) -> str:
    written = findings.text(value)
    if not isinstance(value, str):
        return ""
    if findings.refuse_control(path, written, found):
        return ""
    variable = traps.variable_in(written)
    if not written.startswith("/"):
        hint = f"{variable} is not expanded" if variable else ""
        found.error(path, f"must be an absolute path, is {wording.shown(written)}", hint)
        return ""
    if variable:
        found.warn(path, f"{variable} is taken literally", "write the path in full")
    return "/" + posixpath.normpath(written).lstrip("/")


def build_name(path: Path, value: object, found: Findings) -> str:
    """The name of an owner or a group."""
    written = findings.text(value)
    if findings.refuse_control(path, written, found):
        return ""
    if ":" in written:
        owner, _, group = written.partition(":")
        hint = f"write owner: {wording.shortened(owner)} and group: {wording.shortened(group)}"
        found.error(path, f"must be one name, is {wording.shown(written)}", hint)
    return written


def build_mode(path: Path, value: object, found: Findings) -> int | None:
    """One to four octal digits, as they are written; YAML 1.1 reads 0644 as the number 420."""
    if value is None:
        return None
    written = found.document.written(path) or (value if isinstance(value, str) else "")
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and re.fullmatch(r"0[0-7_]+", written):
        digits = str(value)
        is_octal = re.fullmatch("[0-7]{1,4}", digits)
        would = f"set {digits:0>4}" if is_octal else f"refuse {digits}"
        message = f"{written} without quotes is the number {digits}; AWS's agent would {would}"
        found.error(path, message, f'write "{written}"')
        return None
    if not re.fullmatch("[0-7]{1,4}", written):
        octal = re.fullmatch("0o([0-7]{1,4})", written)
        hint = f'write "{octal[1]}"' if octal else ""
        is_text = isinstance(value, str) or is_number
        if is_text:
            shown = wording.shown(value, written)
            found.error(path, f"must be one to four octal digits, is {shown}", hint)
        return None
    return int(written, 8)


def _acls(
    path: Path, value: object, types: tuple[str, ...], found: Findings
) -> tuple[AclEntry, ...]:
    entries = []
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if isinstance(each, str):
            entry = parse_acl(each)
            if isinstance(entry, AclEntry):
                entries.append(entry)
            else:
                found.error((*path, index), f"{wording.shown(each)} {entry}")
    if any(entry.default for entry in entries) and "file" in types:
        message = "default entries are for folders, and this entry also applies to files"
        found.warn(path, message, "add type: [directory]")
    return tuple(entries)


def parse_acl(text: str) -> AclEntry | str:
    """`[d[efault]:]{u[ser]|g[roup]|m[ask]|o[ther]}:[name]:perms`, or what is wrong with it.

    Shorter forms, as AWS's agent reads them: `name:perms` is a user, `m:perms`, `o:perms`;
    `d:name:perms` a default user. perms are letters of rwx- or one octal digit.
    """
    *names, perms = text.split(":")
    if not 1 <= len(names) <= 3:
        return "must be [default:]user|group|mask|other:[name]:perms"
    default = names[0] in ("d", "default") and len(names) > 1
    rest = names[1:] if default else names
    if len(rest) == 1:
        kind, name = ("user", rest[0])
        if _KINDS.get(rest[0]) in ("mask", "other"):
            kind, name = (_KINDS[rest[0]], "")
    elif len(rest) == 2 and rest[0] in _KINDS:
        kind, name = (_KINDS[rest[0]], rest[1])
    else:
        return "must begin with user, group, mask or other, or with default: and one of them"
    if kind in ("mask", "other") and name:
        return f"names somebody, but {kind} takes no name"
    if not default and kind != "mask" and not name:
        return "is a base entry: use mode for it"
    if not name.isprintable() or any(sign in name for sign in " ,"):
        return "names nobody that can exist"
    if re.fullmatch("[0-7]", perms):
        bits = int(perms)
        return AclEntry(default, kind, name, _letters(bits & 4, bits & 2, bits & 1))
    if not re.fullmatch("[rwx-]*", perms):
        return f"has permissions {wording.shown(perms)}, which are not letters of rwx-"
    return AclEntry(default, kind, name, _letters("r" in perms, "w" in perms, "x" in perms))


def _letters(read: int, write: int, execute: int) -> str:
    return ("r" if read else "-") + ("w" if write else "-") + ("x" if execute else "-")


def _context(path: Path, value: object, found: Findings) -> tuple[tuple[str, str], ...]:
    """SELinux: name (the user), type, range, as far as they are there."""
    context = findings.mapping(value)
    if "role" in context:
        found.error((*path, "role"), "is not supported", "take it away", at_key=True)
    for key in ("name", "type"):
        written = findings.text(context.get(key))
        if written and not re.fullmatch(r"[A-Za-z_][\w.-]*", written, re.ASCII):
            found.error((*path, key), f"must be an SELinux name, is {wording.shown(written)}")
    written = findings.text(context.get("range"))
    if written and not _is_range(written):
        message = f"must be a range such as s0-s1:c0.c255, is {wording.shown(written)}"
        found.error((*path, "range"), message)
    keys = ("name", "type", "range")
    return tuple((key, findings.text(context[key])) for key in keys if context.get(key))


def _is_range(written: str) -> bool:
    """s#[-s#][:c#[.c#][,c#[.c#]]...]: levels and categories grow, categories up to 1023."""
    if not _RANGE.fullmatch(written):
        return False
    levels, _, categories = written.partition(":")
    groups = [[int(number[1:]) for number in levels.split("-")]]
    for category in categories.split(",") if categories else ():
        groups.append([int(number[1:]) for number in category.split(".")])
        if max(groups[-1]) > 1023:
            return False
    return all(group == sorted(group) for group in groups)


def _check_set_twice(built: tuple[Permission, ...], found: Findings) -> None:
    """AWS's agent refuses to set permissions twice on one file or folder."""
    all_below: dict[str, list[int]] = {}
    for index, one in enumerate(built):
        if one.pattern == "**" and not one.excludes:
            all_below.setdefault(one.object, []).append(index)
    seen: dict[tuple[str, str, tuple[str, ...], str], int] = {}
    for index, one in enumerate(built):
        path = ("permissions", index)
        earlier = [
            seen[key]
            for kind in one.types
            if (key := (one.object, one.pattern, one.excludes, kind)) in seen
        ]
        if earlier and one.object:
            number = earlier[0] + 1
            message = f"sets {wording.name(one.object)} again, after entry {number}"
            found.error(path, message, "make one entry of them, or give each its own type")
        else:
            _check_inside(index, built, all_below, found)
        for kind in one.types:
            seen.setdefault((one.object, one.pattern, one.excludes, kind), index)


def _check_inside(
    index: int, built: tuple[Permission, ...], all_below: dict[str, list[int]], found: Findings
) -> None:
    """An entry for everything below a folder, and another one for something in there."""
    one = built[index]
    folder = one.object
    while folder:
        for other in all_below.get(folder, ()):
            is_same = folder == one.object and (one.pattern == "**" and not one.excludes)
            if other != index and not is_same and set(one.types) & set(built[other].types):
                message = (
                    f"{wording.name(one.object)} is also below entry {other + 1}; AWS's agent "
                    "refuses to set permissions twice"
                )
                found.warn(("permissions", index), message, f"add an except to entry {other + 1}")
                return
        folder = "" if folder == "/" else folder.rpartition("/")[0] or "/"
