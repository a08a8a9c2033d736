"""The files of minisign(1): public keys, secret keys and signatures, from text to values and back.

The form is that of minisign 0.12 (minisign.h and minisign.c of jedisct1/minisign): a line that
nobody signed, then base64. What is wrong with a text is a ValueError that ends a sentence: "it …".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass, field

MAX_BYTES = 10 * 2**10
"""Of a file; the longest part is the trusted comment of a signature, 8 KiB."""

_UNTRUSTED = b"untrusted comment: "
_TRUSTED = b"trusted comment: "
_COMMENT_MOST = 1024
_TRUSTED_MOST = 8192
_PURE, _PREHASHED = b"Ed", b"ED"
_SCRYPT, _NO_KDF = b"Sc", b"\0\0"
_CHECKSUM = b"B2"
_SECRET = struct.Struct("<2s2s2s32sQQ104s")
_SCRYPT_R = 8
_SCRYPT_MOST = 2**30  # what minisign takes: a file that asks for more is broken, or hostile


@dataclass(frozen=True, slots=True)
class PublicKey:
    """id: 8 bytes that tell keys apart, nothing more; key: 32 bytes."""

    id: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A .minisig. signature: of the message, or of its BLAKE2b where it is prehashed.

    global_signature: of `signature` and the trusted comment.
    """

    prehashed: bool
    key_id: bytes
    signature: bytes
    trusted_comment: bytes
    global_signature: bytes


@dataclass(frozen=True, slots=True)
class Lock:
    """How a secret key is encrypted; the limits are those of libsodium's scrypt."""

    salt: bytes = field(repr=False)
    operations: int = 2**25
    memory: int = 2**30

    def scrypt(self) -> tuple[int, int, int]:
        """N, r and p of scrypt, as libsodium's pickparams chooses them. Raises ValueError."""
        operations = max(self.operations, 2**15)
        if operations < self.memory // 32:
            n = _power_within(operations // (4 * _SCRYPT_R))
            p = 1
        else:
            n = _power_within(self.memory // (128 * _SCRYPT_R))
            p = min(operations // 4 // n, 2**30 - 1) // _SCRYPT_R
        if n * _SCRYPT_R * 128 > _SCRYPT_MOST or not 1 <= p <= 16:
            raise ValueError("it asks for more work than minisign does to open it")
        return n, _SCRYPT_R, p


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret key as it lies in its file. secret: 104 bytes, encrypted where there is a lock."""

    lock: Lock | None
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """An opened secret key: its id, the 32 bytes that it grows from, and its public part."""

    id: bytes
    seed: bytes = field(repr=False)
    public: bytes


def shown_id(key_id: bytes) -> str:
    """A key's id as minisign shows it: C8D49AB04B2B2BC5."""
    return f"{int.from_bytes(key_id, 'little'):016X}"


def new_hash() -> hashlib.blake2b:
    """Of a message that is signed prehashed."""
    return hashlib.blake2b(digest_size=64)


def hashed(message: bytes) -> bytes:
    """What a prehashed signature signs."""
    return hashlib.blake2b(message, digest_size=64).digest()


# ------------------------------------------------------------------ public keys


def parse_public_key(text: bytes) -> PublicKey:
    """Parse a .pub file: one key."""
    comment, key = _lines(text, 2)
    _comment(comment, _UNTRUSTED, _COMMENT_MOST)
    content = _decoded(key, 42)
    if content[:2] != _PURE:
        raise ValueError("it is no Ed25519 key")
    return PublicKey(content[2:10], content[10:])


def dump_public_key(key: PublicKey) -> bytes:
    """A .pub file."""
    comment = f"minisign public key {shown_id(key.id)}".encode()
    return _joined(_UNTRUSTED + comment, _encoded(_PURE + key.id + key.key))


def shown_public_key(key: PublicKey) -> str:
    """A public key on one line, as `minisign -P` takes it."""
    return _encoded(_PURE + key.id + key.key).decode()


# ------------------------------------------------------------------ signatures


def parse_signature(text: bytes) -> Signature:
    """Parse a .minisig file, of either kind."""
    untrusted, signature, trusted, global_signature = _lines(text, 4)
    _comment(untrusted, _UNTRUSTED, _COMMENT_MOST)
    content = _decoded(signature, 74)
    if content[:2] not in (_PURE, _PREHASHED):
        raise ValueError("it is of a kind that minisign does not make")
    return Signature(
        prehashed=content[:2] == _PREHASHED,
        key_id=content[2:10],
        signature=content[10:],
        trusted_comment=check_trusted_comment(_comment(trusted, _TRUSTED, _TRUSTED_MOST)),
        global_signature=_decoded(global_signature, 64),
    )


def dump_signature(signature: Signature) -> bytes:
    """A .minisig file."""
    kind = _PREHASHED if signature.prehashed else _PURE
    return _joined(
        _UNTRUSTED + b"signature from minisign secret key",
        _encoded(kind + signature.key_id + signature.signature),
        _TRUSTED + signature.trusted_comment,
        _encoded(signature.global_signature),
    )


def check_trusted_comment(comment: bytes) -> bytes:
    """The comment, if it is one that minisign takes: a line of UTF-8 that can be printed."""
    try:
        text = comment.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("its trusted comment is no UTF-8 text") from error
    if not text.replace("\t", "").isprintable():
        raise ValueError("its trusted comment has signs that cannot be printed")
    if len(_TRUSTED) + len(comment) >= _TRUSTED_MOST:
        raise ValueError("its trusted comment is too long")
    return comment


# ------------------------------------------------------------------ secret keys


def parse_secret_file(text: bytes) -> SecretFile:
    """Parse a .key file, encrypted or not; `open_secret` looks inside."""
    comment, key = _lines(text, 2)
    _comment(comment, _UNTRUSTED, _COMMENT_MOST)
    kind, kdf, checksum, salt, operations, memory, secret = _SECRET.unpack(
        _decoded(key, _SECRET.size)
    )
    if kind != _PURE or checksum != _CHECKSUM or kdf not in (_SCRYPT, _NO_KDF):
        raise ValueError("it is of a kind that minisign does not make")
    return SecretFile(Lock(salt, operations, memory) if kdf == _SCRYPT else None, secret)


def dump_secret_file(file: SecretFile) -> bytes:
    """A .key file."""
    lock = file.lock or Lock(bytes(32), 0, 0)
    content = _SECRET.pack(
        _PURE,
        _SCRYPT if file.lock else _NO_KDF,
        _CHECKSUM,
        lock.salt,
        lock.operations,
        lock.memory,
        file.secret,
    )
    return _joined(_UNTRUSTED + b"minisign encrypted secret key", _encoded(content))


def open_secret(secret: bytes) -> Secret:
    """Take 104 decrypted bytes apart. Raises ValueError where their checksum is wrong.

    minisign leaves the checksum of an unencrypted key empty.
    """
    key_id, pair, checksum = secret[:8], secret[8:72], secret[72:]
    if checksum not in (_checksum(key_id, pair), bytes(32)):
        raise ValueError("its checksum is wrong")
    return Secret(key_id, seed=pair[:32], public=pair[32:])


def close_secret(secret: Secret, *, with_checksum: bool) -> bytes:
    """The 104 bytes to encrypt, or to write as they are."""
    pair = secret.seed + secret.public
    checksum = _checksum(secret.id, pair) if with_checksum else bytes(32)
    return secret.id + pair + checksum


def xor(content: bytes, stream: bytes) -> bytes:
    """Encrypt, or decrypt: minisign's cipher is scrypt's output laid over the secret."""
    return bytes(a ^ b for a, b in zip(content, stream, strict=True))


def _checksum(key_id: bytes, pair: bytes) -> bytes:
    return hashlib.blake2b(_PURE + key_id + pair, digest_size=32).digest()


def _power_within(most: int) -> int:
    """The power of two, at least 2, that libsodium's loop ends with for this maximum of N."""
    n = 2
    while n <= most // 2:
        n *= 2
    return n


# ------------------------------------------------------------------ lines


def _lines(text: bytes, count: int) -> list[bytes]:
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 1024} KiB")
    lines = [line.rstrip(b"\r") for line in text.split(b"\n")]
    while lines and not lines[-1]:
        del lines[-1]
    if len(lines) != count:
        raise ValueError(f"it must have {count} lines, and has {len(lines)}")
    return lines


def _comment(line: bytes, prefix: bytes, most: int) -> bytes:
    if not line.startswith(prefix):
        raise ValueError(f"it has no line that begins with {prefix.decode().strip()}")
    if len(line) >= most:
        raise ValueError(f"its {prefix.decode().strip(': ')} is too long")
    return line.removeprefix(prefix)


def _decoded(line: bytes, size: int) -> bytes:
    try:
        content = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is damaged") from error
    if len(content) != size or _encoded(content) != line:  # one spelling only
        raise ValueError("its base64 is cut off, or of something else")
    return content


def _encoded(content: bytes) -> bytes:
    return base64.b64encode(content)


def _joined(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)
