"""A publisher's secret key: made, read, written and used. Never in the daemon."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from agent.formats import minisign
from agent.formats.minisign import Lock, PublicKey, Secret, SecretFile, Signature
from agent.model.errors import AgentError, Code, from_os_error
from agent.system import ed25519, keyring


class SecretKey:
    """A secret key in the open; nothing of it is shown by repr."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, and a new id."""
        seed = ed25519.new_seed()
        return cls(Secret(os.urandom(8), seed, ed25519.public_key(seed)))

    @classmethod
    def load(cls, path: Path, *, password: str = "") -> SecretKey:
        """Read a .key file. Raises AgentError."""
        return cls.parse(read_key_file(path), password=password, where=str(path))

    @classmethod
    def parse(cls, text: bytes, *, password: str = "", where: str = "the secret key") -> SecretKey:
        """The key of a .key file's text; takes seconds and 1 GiB where it is encrypted.

        where: its name for errors, AgentError (BAD_REQUEST).
        """
        try:
            file = minisign.parse_secret_file(text)
            opened = _opened(file, password, where)
        except ValueError as error:
            raise _unusable(where, str(error)) from error
        try:
            secret = minisign.open_secret(opened)
        except ValueError as error:
            cause = "the password is wrong" if file.lock else str(error)
            raise _unusable(where, cause) from error
        if ed25519.public_key(secret.seed) != secret.public:
            raise _unusable(where, "its secret and its public part do not belong together")
        return cls(secret)

    @property
    def public(self) -> PublicKey:
        """The public key to put on the hosts."""
        return PublicKey(self._secret.id, self._secret.public)

    def sign(self, message: bytes, *, trusted_comment: str, legacy: bool = False) -> bytes:
        """A .minisig of the message, prehashed as minisign makes it unless told -l.

        trusted_comment: signed as well; one printable line. Raises AgentError (BAD_REQUEST).
        """
        signed = message if legacy else minisign.hashed(message)
        return self._sign(signed, trusted_comment, prehashed=not legacy)

    def sign_file(self, path: Path, *, trusted_comment: str) -> bytes:
        """The same for a file of any size. Raises AgentError."""
        signed, _ = keyring.read_signed(path, prehashed=True)
        return self._sign(signed, trusted_comment, prehashed=True)

    def _sign(self, signed: bytes, trusted_comment: str, *, prehashed: bool) -> bytes:
        try:
            comment = minisign.check_trusted_comment(trusted_comment.encode())
        except ValueError as error:
            raise _unusable("this trusted comment", str(error)) from error
        signature = ed25519.sign(self._secret.seed, signed)
        return minisign.dump_signature(
            Signature(
                prehashed=prehashed,
                key_id=self._secret.id,
                signature=signature,
                trusted_comment=comment,
                global_signature=ed25519.sign(self._secret.seed, signature + comment),
            )
        )

    def dump(self, *, password: str = "", memory: int = 2**30) -> bytes:
        """The text of a .key file; encrypted where there is a password.

        memory: bytes that opening it takes; the default is minisign's own.
        """
        if not password:
            plain = minisign.close_secret(self._secret, with_checksum=False)
            return minisign.dump_secret_file(SecretFile(None, plain))
        lock = Lock(os.urandom(32), operations=memory // 32, memory=memory)
        plain = minisign.close_secret(self._secret, with_checksum=True)
        sealed = minisign.xor(plain, _stream(password, lock, "the new key"))
        return minisign.dump_secret_file(SecretFile(lock, sealed))


def is_encrypted(text: bytes) -> bool:
    """Whether a .key file's text needs a password; False where it is no such text."""
    try:
        return minisign.parse_secret_file(text).lock is not None
    except ValueError:
        return False


def read_key_file(path: Path) -> bytes:
    """The text of a key or signature file, never more than it may have. Raises AgentError."""
    try:
        with path.open("rb") as file:
            return file.read(minisign.MAX_BYTES + 1)
    except OSError as error:
        raise from_os_error(error, f"read the key {path}", code=Code.BAD_REQUEST) from error


def _opened(file: SecretFile, password: str, where: str) -> bytes:
    if not file.lock:
        return file.secret
    if not password:
        raise _unusable(where, "it is encrypted, and no password was given")
    return minisign.xor(file.secret, _stream(password, file.lock, where))


def _stream(password: str, lock: Lock, where: str) -> bytes:
    """What the password makes of the lock. Raises AgentError, and ValueError for a broken lock."""
    n, r, p = lock.scrypt()
    try:
        return hashlib.scrypt(
            password.encode(),
            salt=lock.salt,
            n=n,
            r=r,
            p=p,
            maxmem=128 * r * (n + p + 2),
            dklen=104,
        )
    except (MemoryError, ValueError) as error:
        cause = f"{128 * r * n // 2**20} MiB of memory are needed, and are not to be had"
        raise _unusable(where, cause) from error


def _unusable(where: str, cause: str) -> AgentError:
    return AgentError(f"cannot use {where}: {cause}", code=Code.BAD_REQUEST)
