"""Keys for signatures: new ones, what is in a file, and signing and checking files by hand."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from agent.formats import minisign
from agent.formats.minisign import PublicKey
from agent.model.errors import AgentError, Code, Conflict, from_os_error
from agent.system import durable, keyring, secret_key
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey

SIGNATURE_SUFFIX = ".minisig"
TRUSTED_FOLDER = keyring.FOLDER


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of a new key."""

    secret: Path
    public: Path
    key: PublicKey


def generate(name: Path, *, password: str = "") -> Pair:
    """Make NAME.key, which only its owner can read, and NAME.pub. Raises AgentError.

    Nothing is ever overwritten: a key that is gone is gone for good.
    """
    stem = name.with_suffix("") if name.suffix in (".key", ".pub") else name
    secret, public = stem.with_name(f"{stem.name}.key"), stem.with_name(f"{stem.name}.pub")
    for path in (secret, public):
        if os.path.lexists(path):
            raise _exists(path)
    key = SecretKey.generate()
    _create(secret, key.dump(password=password), 0o600)
    try:
        _create(public, minisign.dump_public_key(key.public), 0o644)
    except AgentError:
        secret.unlink()
        raise
    return Pair(secret, public, key.public)


def is_encrypted(path: Path) -> bool:
    """Whether a file is a secret key that needs a password. Raises AgentError."""
    return secret_key.is_encrypted(secret_key.read_key_file(path))


def read_public(path: Path, *, password: str = "") -> PublicKey:
    """The public key of a .pub or a .key file. Raises AgentError."""
    text = secret_key.read_key_file(path)
    try:
        return minisign.parse_public_key(text)
    except ValueError:
        return SecretKey.parse(text, password=password, where=str(path)).public


def sign(path: Path, key_path: Path, *, password: str = "") -> tuple[Path, str]:
    """Sign a file; gives its signature's path, which is replaced, and the key's id."""
    key = SecretKey.load(key_path, password=password)
    comment = f"timestamp:{int(time.time())}\tfile:{path.name}\thashed"  # as minisign's own
    signature = key.sign_file(path, trusted_comment=comment)
    target = path.with_name(path.name + SIGNATURE_SUFFIX)
    try:
        durable.write_atomically(target, signature, 0o644)
    except OSError as error:
        raise from_os_error(error, f"write {target}", code=Code.BAD_REQUEST) from error
    return target, minisign.shown_id(key.public.id)


def verify(path: Path, folder: Path) -> str:
    """Check a file against the signature beside it; gives the key's id. Raises AgentError."""
    ring = KeyRing.load(folder)
    signature = secret_key.read_key_file(path.with_name(path.name + SIGNATURE_SUFFIX))
    key_id, _ = ring.check_file(path, signature)
    return key_id


def _create(path: Path, text: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        durable.sync_folder(path.parent)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise from_os_error(error, f"write {path}", code=Code.BAD_REQUEST) from error


def _exists(path: Path) -> Conflict:
    return Conflict(
        f"cannot write {path}: it is there already",
        code=Code.CONFLICT,
        remedy="Choose another name, by: agentctl key generate --output NAME",
    )
