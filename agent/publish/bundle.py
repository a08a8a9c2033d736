"""Makes a bundle of a folder: linted, free of secrets, the same bytes from the same content.

The finished zip is held against all rules that hosts have for bundles, by the code that unpacks
there, before it gets its name: what a host would refuse does not leave the build.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.archive import examine
from agent.formats import manifest
from agent.model.appspec import Problem, Severity
from agent.model.errors import AgentError, Code, Conflict, from_os_error
from agent.model.manifest import Compatible, Manifest, Unpacked
from agent.publish import contents, git, ignore, lint, secrets, zip_writer
from agent.system import durable

_CANNOT_UNPACK = "cannot unpack the bundle: "
# a folder with such a name says where a build puts things, not what it builds
_NO_APPLICATIONS = frozenset(
    {"app", "build", "bundle", "dist", "out", "output", "public", "release", "src", "target", "tmp"}
)

_FIRST_BUILT_AT = 946684800  # 2000-01-01, below which release.json takes no time
_MOST_DIGITS = 18

Tell = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to make. application: "" takes it from release.json, else from the folder's name.

    commit: "" asks git. output: None is <application>-<version>.zip in the working folder.
    allowed_secrets: files and folders below `folder` in which secrets are meant to be.
    """

    folder: Path
    version: str
    application: str = ""
    output: Path | None = None
    commit: str = ""
    compatible: Compatible = field(default_factory=Compatible)
    allowed_secrets: tuple[str, ...] = ()
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that lies at `path`. left_out: what was ignored; folders end with a slash."""

    path: Path
    size: int
    sha256: str
    manifest: Manifest
    left_out: tuple[str, ...]


def build(request: Request, environ: Mapping[str, str], *, tell: Tell) -> Built:
    """Make the bundle. tell: is given every finding, also the warnings with which it goes on.

    Raises AgentError: BAD_REQUEST (what was asked for), BUNDLE_REFUSED (what the folder holds:
    its details say all that was told), CONFLICT (another bundle lies there), DISK_FULL;
    TransientError (BUNDLE_CHANGED) if something changes meanwhile. Nothing is left then.
    """
    folder = request.folder
    if not folder.is_dir():
        raise _unusable(f"{folder}: it is no folder", "Name the folder with the appspec in it")
    packed = contents.read_contents(folder, ignore.Ignore.load(folder))
    tree = contents.PackedTree(folder, packed)
    _refuse(lint.lint_tree(tree, folder, is_folder=True), folder, tell)
    described, seconds = _describe(request, environ, tree, tell)
    path = request.output or Path(f"{described.application}-{described.version}.zip")
    _check_output(path, folder)
    watch = secrets.Watch(folder, request.allowed_secrets)
    with _partial(path) as partial:
        with zip_writer.writing(partial, seconds=seconds, look=watch.look) as writer:
            described = _write(request, writer, packed, described)
        _refuse(watch.problems(), folder, tell)
        _examine(partial)
        size, sha256 = partial.stat().st_size, zip_writer.read_digest(partial)
        _put(partial, path, sha256, may_replace=request.replace)
    return Built(path, size, sha256, described, packed.left_out)


def _refuse(problems: list[Problem], folder: Path, tell: Tell) -> None:
    """Tell all problems; raise AgentError if one of them is an error."""
    for problem in problems:
        tell(problem)
    errors = [str(each) for each in problems if each.severity is Severity.ERROR]
    if errors:
        raise AgentError(
            f"cannot bundle {folder}: it has {len(errors)} error{'s' if len(errors) > 1 else ''}",
            code=Code.BUNDLE_REFUSED,
            details=tuple(errors),
            remedy="Correct what the lines above name, then try again",
        )


# what it is


def _describe(
    request: Request, environ: Mapping[str, str], tree: contents.PackedTree, tell: Tell
) -> tuple[Manifest, int]:
    """The manifest, but for what is only known when it is packed, and the time of all entries."""
    text = tree.beginning(manifest.FILENAME, manifest.MAX_BYTES + 1)
    old = manifest.parse_manifest(text) if text else Manifest(request.version)
    if old.version != request.version:
        raise _contradiction(request.folder, "version", old.version, request.version)
    if old.application and request.application not in ("", old.application):
        raise _contradiction(request.folder, "application", old.application, request.application)
    found = git.read_commit(request.folder, environ)
    if found.problem:
        hint = "give the commit by --commit, and a time by SOURCE_DATE_EPOCH"
        message = f"git does not tell the commit: {found.problem}"
        tell(Problem(Severity.WARNING, str(request.folder), 0, 0, message, hint))
    seconds = _epoch(environ, found.time)
    described = Manifest(
        version=request.version,
        application=request.application or old.application or _folder_name(request.folder),
        commit=request.commit or found.name,
        built_at=float(seconds if seconds >= _FIRST_BUILT_AT else 0),
        compatible=request.compatible,
    )
    try:
        manifest.dump_manifest(described)
    except AgentError as error:
        raise _unusable(f"{request.folder}: {error.message}", "Say it otherwise") from error
    return described, seconds


def _folder_name(folder: Path) -> str:
    name = folder.resolve().name
    if name.lower() in _NO_APPLICATIONS or not name:
        raise _unusable(
            f"{folder}: {name or '/'} is hardly the name of the application",
            "Say which application it is: --application NAME",
        )
    return name


def _epoch(environ: Mapping[str, str], otherwise: int) -> int:
    """SOURCE_DATE_EPOCH, as its specification has it, if it is set."""
    text = environ.get("SOURCE_DATE_EPOCH") or str(otherwise)
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise _unusable(
            f"anything with SOURCE_DATE_EPOCH={text!r}: it is no number of seconds since 1970",
            "Unset it, or set it to a time: SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
        )
    return int(text)


def _contradiction(folder: Path, key: str, old: str, new: str) -> AgentError:
    return _unusable(
        f"{folder} as {key} {new}: its {manifest.FILENAME} says {old}",
        f"Build the folder anew for {new}, or remove that {manifest.FILENAME}",
    )


def _unusable(cause: str, remedy: str) -> AgentError:
    return AgentError(f"cannot bundle {cause}", code=Code.BAD_REQUEST, remedy=remedy)


# how it is written


def _write(
    request: Request, writer: zip_writer.ZipWriter, packed: contents.Contents, described: Manifest
) -> Manifest:
    """Write all entries, then release.json; the manifest as it stands there."""
    for entry in packed.entries:
        writer.add(request.folder, entry)
    text = b""
    while True:  # it counts itself; its length grows with its numbers, and so comes to an end
        unpacked = Unpacked(bytes=writer.bytes + len(text), files=writer.files + 1)
        described = replace(described, unpacked=unpacked)
        before, text = len(text), manifest.dump_manifest(described)
        if len(text) == before:
            writer.add_text(manifest.FILENAME, text)
            return described


def _check_output(path: Path, folder: Path) -> None:
    """Refuse a path in the folder itself: the next bundle would hold the last."""
    if path.is_dir():
        raise _unusable(f"{folder} into {path}: that is a folder", "Name a file: --output FILE")
    root, where = folder.resolve(), path.absolute().parent.resolve()
    if root == where or root in where.parents:
        raise _unusable(
            f"{folder} into {path}: that lies in the folder itself",
            "Name another place: --output ../FILE",
        )


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A name beside `path` for what is not complete; nothing is left there afterwards."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
    except OSError as error:
        if error.filename in (None, str(partial)):
            doing, remedy = (
                f"write {path}",
                "Make room for it, or name another place: --output FILE",
            )
        else:
            doing = f"read {error.filename}"
            remedy = f"Permit it to this user, or leave it out in {ignore.FILENAME}"
        raise from_os_error(error, doing, code=Code.BUNDLE_REFUSED, remedy=remedy) from error
    finally:
        partial.unlink(missing_ok=True)


def _examine(partial: Path) -> None:
    try:
        examine.examine(partial)
    except AgentError as error:
        cause = error.message.removeprefix(_CANNOT_UNPACK)
        raise AgentError(
            f"cannot make the bundle: hosts would refuse it: {cause}",
            code=Code.BUNDLE_REFUSED,
            remedy=error.remedy,
        ) from error


def _put(partial: Path, path: Path, sha256: str, *, may_replace: bool) -> None:
    """Give the bundle its name, if nothing else has it."""
    if path.exists() and not may_replace and zip_writer.read_digest(path) != sha256:
        raise Conflict(
            f"cannot write {path}: another bundle of that name is there",
            code=Code.CONFLICT,
            remedy="A version is built once: give this one another, or replace it by --force",
        )
    partial.replace(path)
    durable.sync_folder(path.absolute().parent)
