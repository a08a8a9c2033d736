"""What does not go into a bundle: .deployignore, in the words of .gitignore. Only here is pathspec.

Source of the rules: gitignore(5). Unlike git's, the file counts only in the root of the folder; and
below a folder that `!` takes in again, older versions of pathspec take all in, as Debian 13's 0.12.
"""

from __future__ import annotations

from pathlib import Path

import pathspec

from agent.model.errors import AgentError, Code, from_os_error

FILENAME = ".deployignore"
MAX_BYTES = 2**20
ALWAYS = ".git"  # whatever the file says: it holds every secret that was ever committed
_DEFAULTS = (
    ".hg/", ".svn/", "__pycache__/", "*.pyc", ".DS_Store", "._*", "/__MACOSX/", f"/{FILENAME}",
)  # fmt: skip


class Ignore:
    """Tells which paths, relative to the root of the folder, are left out."""

    def __init__(self, spec: pathspec.GitIgnoreSpec) -> None:
        self._spec = spec

    @classmethod
    def load(cls, folder: Path) -> Ignore:
        """Read the folder's ignore file, if it has one. Raises AgentError: BAD_REQUEST."""
        return cls(_spec((*_DEFAULTS, *_read_lines(folder / FILENAME)), folder / FILENAME))

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path is left out; its folders, which were asked before, are not looked at."""
        if path.rpartition("/")[2] == ALWAYS:
            return True
        return self._spec.match_file(f"{path}/" if is_folder else path)


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.BAD_REQUEST) from error
    if len(text) > MAX_BYTES:
        raise _unusable(path, f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        return text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _unusable(path, "it is no UTF-8 text") from error


def _spec(lines: tuple[str, ...], path: Path) -> pathspec.GitIgnoreSpec:
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError:
        for number, line in enumerate(lines[len(_DEFAULTS) :], start=1):
            try:
                pathspec.GitIgnoreSpec.from_lines([line])
            except ValueError as error:
                raise _unusable(path, f"line {number} is no pattern: {line}") from error
        raise


def _unusable(path: Path, cause: str) -> AgentError:
    return AgentError(
        f"cannot use {path}: {cause}",
        code=Code.BAD_REQUEST,
        remedy="Write one pattern a line, as in a .gitignore",
    )
