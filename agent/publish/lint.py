"""Lints a bundle, an appspec or another file of ours, without unpacking or changing anything."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.formats import appspec, bundle_tree, environments, manifest, settings, yamldoc
from agent.model.appspec import Problem, Severity
from agent.model.errors import AgentError, Code
from agent.model.manifest import Manifest

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted zip; NotImplementedError: a compression that nobody uses
    ValueError,
)


def lint(target: Path) -> list[Problem]:
    """Every problem of a target, in the order of its file.

    target: a folder with an appspec in its root, an archive of one (zip, tar, tgz), or a file:
    agent.yaml and the files of conf.d are configuration, deploy.yaml and what has its top key
    names environments, any other one is an appspec.
    A folder and an archive are also checked for what the appspec names and for release.json.
    Raises AgentError: BAD_REQUEST if there is no such target, BUNDLE_DAMAGED, APPSPEC_INVALID.
    """
    if target.is_dir():
        return lint_tree(bundle_tree.FolderTree(target), target, is_folder=True)
    if not target.is_file():
        raise AgentError(
            f"cannot lint {target}: there is no such file or folder",
            code=Code.BAD_REQUEST,
            remedy="Name a folder, an archive or an appspec: agentctl lint FOLDER",
        )
    if target.name == "agent.yaml" or target.parent.name == "conf.d":
        return list(settings.read_config(target)[1])
    if target.name in environments.FILENAMES:
        return list(environments.read_environments(target)[1])
    with _opened(target) as tree:
        if tree is not None:
            return lint_tree(tree, target, is_folder=False)
    text = appspec.read_limited(target)
    if environments.looks_like_environments(text):
        return list(environments.parse_environments(text, target)[1])
    return list(appspec.parse_appspec(text, str(target)).problems)


def lint_tree(tree: bundle_tree.BundleTree, target: Path, *, is_folder: bool) -> list[Problem]:
    """The problems of a bundle's files, wherever they lie. target: for the places."""
    names = tree.names("")
    name = next((each for each in appspec.FILENAMES if each in names), "")
    if not name:
        hint = appspec.missing_hint(names)
        return [Problem(Severity.ERROR, str(target), 0, 0, "has no appspec.yml in its root", hint)]
    text = tree.beginning(name, yamldoc.MAX_BYTES + 1)
    parsed = appspec.parse_appspec(text, str(target / name) if is_folder else name)
    if parsed.appspec is None:
        return list(parsed.problems)
    problems = [
        *parsed.problems,
        *bundle_tree.check_bundle(parsed.appspec, tree, parsed.document),
    ]
    problems.sort(key=lambda each: (each.line, each.column))
    name = manifest.FILENAME
    return problems + _lint_manifest(tree, str(target / name) if is_folder else name)


def _lint_manifest(tree: bundle_tree.BundleTree, shown_name: str) -> list[Problem]:
    if tree.kind(manifest.FILENAME):
        try:
            manifest.parse_manifest(tree.beginning(manifest.FILENAME, manifest.MAX_BYTES + 1))
        except AgentError as error:
            return [Problem(Severity.ERROR, shown_name, 0, 0, error.message, error.remedy)]
    return []


def read_manifest(bundle: Path) -> Manifest | None:
    """The release.json of an archive, None if it has none. Raises AgentError."""
    with _opened(bundle) as tree:
        if tree is None or not tree.kind(manifest.FILENAME):
            return None
        return manifest.parse_manifest(tree.beginning(manifest.FILENAME, manifest.MAX_BYTES + 1))


@contextmanager
def _opened(target: Path) -> Iterator[bundle_tree.BundleTree | None]:
    """An archive as a tree, or None if the file is no archive."""
    try:
        if zipfile.is_zipfile(target):
            with zipfile.ZipFile(target) as archive:
                yield _ZipTree(archive)
        elif tarfile.is_tarfile(target):
            with tarfile.open(target) as archive:
                yield _TarTree(archive)
        else:
            yield None
    except AgentError:
        raise
    except _DAMAGED as error:
        raise AgentError(
            f"cannot read {target}: {error}",
            code=Code.BUNDLE_DAMAGED,
            remedy="Build the bundle again",
        ) from error


class _ArchiveTree:
    """The names of an archive as a tree; one folder that wraps everything is left out.

    Source of the rule: AWS's agent strips a lone top folder that holds an appspec.
    """

    def __init__(self, members: Iterator[tuple[str, bool]]) -> None:
        self._kinds: dict[str, str] = {"": "folder"}
        self._names: dict[str, set[str]] = {"": set()}
        self._wrap = ""
        for name, is_folder in members:
            self._add(name, is_folder=is_folder)
        tops = self._names[""] - {"__MACOSX"}  # macOS adds it beside what was packed
        top = next(iter(tops), "")
        if len(tops) == 1 and any("appspec" in name for name in self._names.get(top, ())):
            self._wrap = f"{top}/"

    def _add(self, name: str, *, is_folder: bool) -> None:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for depth, part in enumerate(parts):
            folder, path = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            self._names.setdefault(folder, set()).add(part)
            is_inner = depth + 1 < len(parts) or is_folder
            if is_inner or path not in self._kinds:
                self._kinds[path] = "folder" if is_inner else "file"

    def _inner(self, path: str) -> str:
        return f"{self._wrap}{path}".rstrip("/")

    def kind(self, path: str) -> str:
        """Give "file", "folder" or "" where nothing is."""
        return self._kinds.get(self._inner(path), "")

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(self._names.get(self._inner(folder), ()))


class _ZipTree(_ArchiveTree):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {_plain(each.filename): each for each in archive.infolist()}
        super().__init__((each.filename, each.is_dir()) for each in archive.infolist())

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a file."""
        member = self._members.get(self._inner(path))
        if member is None or member.is_dir():
            return b""
        with self._archive.open(member) as file:
            return file.read(size)


class _TarTree(_ArchiveTree):
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {_plain(each.name): each for each in archive}
        super().__init__((each.name, each.isdir()) for each in archive.getmembers())

    def beginning(self, path: str, size: int) -> bytes:
        """The first bytes of a regular file; of a link, none."""
        member = self._members.get(self._inner(path))
        file = self._archive.extractfile(member) if member and member.isreg() else io.BytesIO()
        return file.read(size) if file else b""


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
