"""Write environment files, and put back, exactly, what was there.

What was there is copied into the deployment's folder before anything is written, all of it with
its permissions, and its list is on the disk before that: so the undo may run after a crash at any
moment, and twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.errors import AgentError, Code, from_os_error
from agent.system import durable, users

_FOLDER = "environment"
_LIST = "list.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file as it has to be; content None: not there. owner, group: "" for the agent's own."""

    path: Path
    content: bytes | None = field(repr=False)
    mode: int = 0o600
    owner: str = ""
    group: str = ""


def install(work_dir: Path, wanted: Sequence[Wanted]) -> int:
    """Write them; how many changed. Blocks; may run again. Raises AgentError."""
    with _translated("write the environment"):
        _keep(work_dir, [each.path for each in wanted])
    changed = 0
    for each in wanted:
        with _translated(f"write {each.path}"):
            changed += _write(each)
    return changed


def undo(work_dir: Path) -> bool:
    """Put back what was there; whether anything was. Blocks; may run again. Raises AgentError."""
    folder = work_dir / _FOLDER
    try:
        entries = json.loads((folder / _LIST).read_text("utf-8"))
    except FileNotFoundError:
        return False
    failures = []
    for number, entry in enumerate(entries["files"]):
        try:
            _put_back(Path(entry["path"]), folder / str(number), was_there=entry["was_there"])
        except OSError as error:
            failures.append(f"{entry['path']}: {error.strerror}")
    for path in reversed(entries["made"]):
        with contextlib.suppress(OSError):  # others use it: it stays
            os.rmdir(path)
    if failures:
        raise AgentError(
            f"cannot put back {len(failures)} of the environment files",
            code=Code.INSTALL_FAILED,
            details=tuple(failures),
            remedy=f"Put these back by hand, from {folder}",
        )
    return True


def forget(work_dir: Path) -> None:
    """Remove what was kept for an undo: it has secrets. Blocks; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(work_dir / _FOLDER)


def _keep(work_dir: Path, paths: Sequence[Path]) -> None:
    """Copy what is there, once in a deployment."""
    folder = work_dir / _FOLDER
    if (folder / _LIST).exists():
        return
    forget(work_dir)
    folder.mkdir(mode=0o700)
    entries = []
    for number, path in enumerate(paths):
        was_there = path.is_symlink() or path.exists()
        if was_there:
            _copy(path, folder / str(number))
        entries.append({"path": str(path), "was_there": was_there})
    made = sorted({str(each) for path in paths for each in _missing_folders(path)})
    durable.sync_folder(folder)
    durable.write_atomically(folder / _LIST, json.dumps({"files": entries, "made": made}).encode())


def _missing_folders(path: Path) -> list[Path]:
    return [each for each in path.parents if not each.exists()]


def _copy(source: Path, target: Path) -> None:
    """With owner, permissions, times and extended attributes, ACLs among them."""
    status = source.lstat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "it is a folder", str(source))
    shutil.copy2(source, target, follow_symlinks=False)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))  # chown takes set-id bits away
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _put_back(path: Path, kept: Path, *, was_there: bool) -> None:
    if not was_there:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            durable.sync_folder(path.parent)
        return
    partial = _partial(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    _copy(kept, partial)
    partial.replace(path)
    durable.sync_folder(path.parent)


def _write(wanted: Wanted) -> bool:
    """Whether it was different."""
    path = wanted.path
    if wanted.content is None:
        there = path.is_symlink() or path.exists()
        path.unlink(missing_ok=True)
        return there
    uid, gid = _ids(wanted)
    if _is_so(wanted, uid, gid):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
        file.write(wanted.content)
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), wanted.mode)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    durable.sync_folder(path.parent)
    return True


def _is_so(wanted: Wanted, uid: int, gid: int) -> bool:
    try:
        status = wanted.path.lstat()
        seen = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        is_file = stat.S_ISREG(status.st_mode)
        return (
            is_file
            and seen == (wanted.mode, uid, gid)
            and (wanted.path.read_bytes() == wanted.content)
        )
    except FileNotFoundError:
        return False


def _ids(wanted: Wanted) -> tuple[int, int]:
    """Its owner's uid, and the gid of its group, else its owner's own. Raises NotFound."""
    account = users.find_account(wanted.owner) if wanted.owner else users.own_account()
    return account.uid, users.find_group(wanted.group) if wanted.group else account.gid


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.deploy-agent")


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing, code=Code.INSTALL_FAILED) from error
