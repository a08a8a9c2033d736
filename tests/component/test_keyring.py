"""A host's folder of public keys: which are taken, and which stop everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.formats import minisign
from agent.model.errors import AgentError, Code
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey

KEY = SecretKey.generate()
OTHER = SecretKey.generate()
KEY_ID = minisign.shown_id(KEY.public.id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one key."""
    made = tmp_path / "keys.d"
    made.mkdir(mode=0o755)
    write(made / "ci.pub", KEY)
    return made


def write(path: Path, key: SecretKey) -> None:
    path.write_bytes(minisign.dump_public_key(key.public))
    path.chmod(0o644)


def test_no_folder_and_no_file_are_no_key(tmp_path: Path) -> None:
    assert KeyRing.load(tmp_path / "absent").is_empty
    (tmp_path / "empty").mkdir(mode=0o755)
    assert KeyRing.load(tmp_path / "empty").is_empty


def test_rotation(folder: Path) -> None:
    old, new = (key.sign(b"x", trusted_comment="") for key in (KEY, OTHER))
    ring = KeyRing.load(folder)
    assert ring.check(b"x", old) == KEY_ID
    with pytest.raises(AgentError) as caught:
        ring.check(b"x", new)
    other_id = minisign.shown_id(OTHER.public.id)
    assert f"signed with the key {other_id}, and {folder} has {KEY_ID}" in caught.value.message

    write(folder / "ci-2027.pub", OTHER)
    ring = KeyRing.load(folder)
    assert (ring.check(b"x", old), ring.check(b"x", new)) == (KEY_ID, other_id)

    (folder / "ci.pub").rename(folder / "ci.pub.old")
    with pytest.raises(AgentError, match=f"signed with the key {KEY_ID}"):
        KeyRing.load(folder).check(b"x", old)


def test_an_empty_ring_trusts_nobody(tmp_path: Path) -> None:
    signature = KEY.sign(b"x", trusted_comment="")
    with pytest.raises(AgentError, match="has no key"):
        KeyRing.load(tmp_path / "absent").check(b"x", signature)


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def second_key(path: Path) -> None:
    path.write_bytes(path.read_bytes() + minisign.dump_public_key(OTHER.public))


def same_id(path: Path) -> None:
    taken = minisign.PublicKey(KEY.public.id, OTHER.public.key)
    path.with_name("b.pub").write_bytes(minisign.dump_public_key(taken))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o755)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda path: path.write_text(""), "it must have 2 lines, and has 0"),
        (lambda path: path.write_bytes(KEY.dump()), "its base64 is cut off, or of something else"),
        (lambda path: path.write_text("x" * 2**20), "it has more than 10 KiB"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "its base64 is"),
        (second_key, "it must have 2 lines, and has 4"),
        (same_id, "two keys in it have the id"),
        (link, "it is a symbolic link"),
        (fifo, "it is no regular file"),
        (folder_instead, "it is no regular file"),
        (lambda path: path.chmod(0o664), "others than its owner may write to it (mode 0664)"),
        (lambda path: path.chmod(0o646), "others than its owner may write to it (mode 0646)"),
        (lambda path: path.parent.chmod(0o775), "may write to it (mode 0775)"),
        (lambda path: path.parent.chmod(0o1777), "may write to it (mode 1777)"),
        (lambda path: path.rename(path.with_name("ci.pem")), "it holds ci.pem, and no file that"),
    ],
)
def test_what_is_doubtful_stops_everything(
    folder: Path, change: Callable[[Path], object], cause: str
) -> None:
    change(folder / "ci.pub")
    with pytest.raises(AgentError) as caught:
        KeyRing.load(folder)
    assert cause in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.code is Code.CONFIG_INVALID


def test_a_file_instead_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "keys.d", KEY)
    with pytest.raises(AgentError, match="Not a directory"):
        KeyRing.load(tmp_path / "keys.d")


@pytest.mark.root
@pytest.mark.parametrize("which", ["ci.pub", "."])
def test_the_keys_of_another_user(folder: Path, which: str) -> None:
    os.chown(folder / which, 65534, 65534)
    with pytest.raises(AgentError, match="belongs to uid 65534"):
        KeyRing.load(folder)


@pytest.mark.root
def test_what_cannot_be_read_is_not_left_out(state_dir: Path) -> None:
    keys = state_dir / "keys.d"
    keys.mkdir(mode=0o755)
    state_dir.chmod(0o755)
    write(keys / "ci.pub", KEY)
    (keys / "ci.pub").chmod(0o600)
    script = (
        "import os, sys; os.setuid(65534)\n"
        "from pathlib import Path; from agent.system.keyring import KeyRing\n"
        "try: KeyRing.load(Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
    )
    argv = [sys.executable, "-c", script, str(keys)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=9).stdout
    assert said == f"cannot read the key {keys}/ci.pub: Permission denied\n"


def test_without_keys_the_library_is_not_loaded(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from agent.system.keyring import KeyRing\n"
        "ring = KeyRing.load(Path(sys.argv[1]))\n"
        "print(len(ring.ids), 'cryptography' in sys.modules)\n"
    )
    argv = [sys.executable, "-c", script, str(folder)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=9).stdout
    assert said == "1 False\n"
