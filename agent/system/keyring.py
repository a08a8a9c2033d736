"""The public keys that this host trusts: one file each, in a folder that only root may change."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from agent.formats import minisign
from agent.formats.minisign import PublicKey, Signature
from agent.model.errors import AgentError, Code, from_os_error
from agent.system import ed25519

FOLDER = Path("/etc/deploy-agent/keys.d")
SUFFIX = ".pub"
_PIECE_BYTES = 2**20
_PURE_MOST = 64 * 2**20  # minisign reads a file of any size into memory for this kind


class KeyRing:
    """Keys by their id. An empty ring trusts nobody; its user decides what that means."""

    def __init__(self, keys: Iterable[PublicKey] = (), *, folder: Path = FOLDER) -> None:
        """Raises AgentError (CONFIG_INVALID) where two different keys have one id."""
        self.folder = folder
        self._keys: dict[bytes, PublicKey] = {}
        for key in keys:
            if self._keys.setdefault(key.id, key) != key:
                raise _unusable(folder, f"two keys in it have the id {minisign.shown_id(key.id)}")

    @classmethod
    def load(cls, folder: Path) -> KeyRing:
        """Read the *.pub files of a folder; an absent or empty folder is an empty ring.

        Anything doubtful is an AgentError (CONFIG_INVALID), so that no key is overlooked and no
        stranger's is taken: a file that cannot be read, is no key, or may be written by others.
        """
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return cls(folder=folder)
        except OSError as error:
            raise from_os_error(error, f"read {folder}", code=Code.CONFIG_INVALID) from error
        try:
            _check_writers(os.fstat(descriptor), folder)
            names = sorted(os.listdir(descriptor))
            chosen = [name for name in names if name.endswith(SUFFIX)]
            if names and not chosen:
                cause = f"it holds {names[0]}, and no file that ends in {SUFFIX}"
                raise _unusable(
                    folder, cause, f"Name public keys NAME{SUFFIX}, or empty the folder"
                )
            return cls([_read(name, descriptor, folder) for name in chosen], folder=folder)
        finally:
            os.close(descriptor)

    @property
    def is_empty(self) -> bool:
        """Whether there is no key."""
        return not self._keys

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, as minisign shows them."""
        return tuple(minisign.shown_id(key_id) for key_id in self._keys)

    def check(self, message: bytes, signature: bytes, *, what: str = "the manifest") -> str:
        """Check a .minisig of a message with its trusted comment; gives the id of the key.

        what: the message's name for errors: AgentError (MANIFEST_REFUSED).
        """
        parsed, key = self._signer(signature, what)
        signed = minisign.hashed(message) if parsed.prehashed else message
        return _check(signed, parsed, key, what)

    def check_file(self, path: Path, signature: bytes) -> tuple[str, str]:
        """The same for a file of any size: the key's id, and the sha256 of what was checked.

        Raises AgentError.
        """
        parsed, key = self._signer(signature, str(path))
        signed, sha256 = read_signed(path, prehashed=parsed.prehashed)
        return _check(signed, parsed, key, str(path)), sha256

    def _signer(self, signature: bytes, what: str) -> tuple[Signature, PublicKey]:
        try:
            parsed = minisign.parse_signature(signature)
        except ValueError as error:
            raise _refused(what, f"its signature is no minisign file: {error}") from error
        if key := self._keys.get(parsed.key_id):
            return parsed, key
        key_id, known = minisign.shown_id(parsed.key_id), ", ".join(self.ids) or "no key"
        raise _refused(
            what,
            f"it is signed with the key {key_id}, and {self.folder} has {known}",
            f"If {key_id} is yours, put its {SUFFIX} there; else sign with a key that is there",
        )


def read_signed(path: Path, *, prehashed: bool) -> tuple[bytes, str]:
    """What a signature of a file signs, its BLAKE2b or all of it; and its sha256 in hex.

    It is read once: what has this sha256 is what was signed. Raises AgentError.
    """
    blake2b, sha256, content = minisign.new_hash(), hashlib.sha256(), bytearray()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                blake2b.update(piece)
                sha256.update(piece)
                if prehashed:
                    continue
                content += piece
                if len(content) > _PURE_MOST:
                    break
    except OSError as error:
        raise from_os_error(error, f"read {path}", code=Code.BAD_REQUEST) from error
    if prehashed:
        return blake2b.digest(), sha256.hexdigest()
    if len(content) > _PURE_MOST:
        cause = f"it has more than {_PURE_MOST // 2**20} MiB, and its signature is a legacy one"
        raise _refused(str(path), cause, "Sign it without the option -l")
    return bytes(content), sha256.hexdigest()


def _check(signed: bytes, signature: Signature, key: PublicKey, what: str) -> str:
    key_id = minisign.shown_id(key.id)
    if not ed25519.is_signed(signed, signature.signature, public=key.key):
        raise _refused(what, f"it is not what the owner of the key {key_id} signed")
    commented = signature.signature + signature.trusted_comment
    if not ed25519.is_signed(commented, signature.global_signature, public=key.key):
        cause = f"the trusted comment of its signature is not what the owner of {key_id} wrote"
        raise _refused(what, cause)
    return key_id


def _refused(what: str, cause: str, remedy: str = "") -> AgentError:
    return AgentError(
        f"cannot trust {what}: {cause}",
        code=Code.MANIFEST_REFUSED,
        remedy=remedy or "Find out who changed it; then publish it again, by: agentctl push",
    )


# ------------------------------------------------------------------ files


def _read(name: str, folder_descriptor: int, folder: Path) -> PublicKey:
    path = folder / name
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder_descriptor)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _unusable(path, "it is no regular file")
            _check_writers(found, path)
            return minisign.parse_public_key(os.read(descriptor, minisign.MAX_BYTES + 1))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "it is a symbolic link", f"Copy the key to {path}") from error
        raise from_os_error(error, f"read the key {path}", code=Code.CONFIG_INVALID) from error
    except ValueError as error:
        raise _unusable(path, f"{error}", f"Copy the key there again, or remove {path}") from error


def _check_writers(found: os.stat_result, path: Path) -> None:
    """Whoever can write here decides what this host deploys as root."""
    if found.st_uid not in (0, os.geteuid()):
        cause = f"it belongs to uid {found.st_uid}, who could put any key there"
        raise _unusable(path, cause, f"Look at the keys, then: chown root: {path}")
    if found.st_mode & 0o022:
        cause = f"others than its owner may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
        raise _unusable(path, cause, f"Look at the keys, then: chmod go-w {path}")


def _unusable(path: Path, cause: str, remedy: str = "") -> AgentError:
    return AgentError(
        f"cannot use {path} for signatures: {cause}", code=Code.CONFIG_INVALID, remedy=remedy
    )
