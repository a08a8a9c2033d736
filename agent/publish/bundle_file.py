"""A bundle that lies here as a file, described for publication."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

from agent.archive import examine
from agent.formats import manifest
from agent.model.appspec import Severity
from agent.model.errors import AgentError, Code, from_os_error
from agent.model.manifest import BundleRef, Manifest, Unpacked
from agent.publish import layout, lint


def describe(bundle: Path, *, version: str = "", application: str = "") -> Manifest:
    """The manifest of a bundle, with its digest.

    version, application: for a bundle without a release.json that says them.
    Raises AgentError: BAD_REQUEST, BUNDLE_DAMAGED, or BUNDLE_REFUSED for one that no host takes.
    """
    if not bundle.is_file():
        raise _unusable(bundle, "there is no such file", "Build it, by: agentctl bundle FOLDER")
    if not zipfile.is_zipfile(bundle):
        raise _unusable(bundle, "it is no zip", "Build it, by: agentctl bundle FOLDER")
    examine.examine(bundle)
    _refuse_problems(bundle)
    inner = lint.read_manifest(bundle)
    described = Manifest(
        version=_one("version", bundle, inner.version if inner else "", version),
        application=_one("application", bundle, inner.application if inner else "", application),
        unpacked=(inner.unpacked if inner else None) or _count(bundle),
    )
    if inner:
        described = replace(
            described,
            commit=inner.commit,
            built_at=inner.built_at,
            compatible=inner.compatible,
        )
    sha256, size = _digest(bundle)
    described = replace(described, bundle=BundleRef(layout.bundle_url(sha256), sha256, size))
    manifest.dump_manifest(described)  # what was given may be no word
    return described


def _refuse_problems(bundle: Path) -> None:
    errors = [str(each) for each in lint.lint(bundle) if each.severity is Severity.ERROR]
    if errors:
        raise AgentError(
            f"cannot push {bundle}: it has {len(errors)} error{'s' if len(errors) > 1 else ''}",
            code=Code.BUNDLE_REFUSED,
            details=tuple(errors),
            remedy=f"Correct what the lines above name; to see all: agentctl lint {bundle}",
        )


def _one(key: str, bundle: Path, inner: str, given: str) -> str:
    """What the bundle says, else what was given; they must not differ."""
    if inner and given and inner != given:
        cause = f"it is {key} {inner}, not {given}"
        raise _unusable(bundle, cause, f"Leave --{key} out, or build that bundle")
    if not (inner or given):
        raise _unusable(bundle, f"it does not say its {key}", f"Say it: --{key} {key.upper()}")
    return inner or given


def _count(bundle: Path) -> Unpacked:
    with zipfile.ZipFile(bundle) as archive:
        files = [each for each in archive.infolist() if not each.is_dir()]
        return Unpacked(bytes=sum(each.file_size for each in files), files=len(files))


def _digest(bundle: Path) -> tuple[str, int]:
    try:
        with bundle.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return digest.hexdigest(), file.tell()
    except OSError as error:
        raise from_os_error(error, f"read {bundle}", code=Code.BAD_REQUEST) from error


def _unusable(bundle: Path, cause: str, remedy: str) -> AgentError:
    return AgentError(f"cannot push {bundle}: {cause}", code=Code.BAD_REQUEST, remedy=remedy)
