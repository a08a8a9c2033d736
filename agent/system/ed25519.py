"""Ed25519 signatures (RFC 8032), by the library `cryptography`: its one importer.

It is loaded where a signature is made or checked, and not before: a host without keys does
without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from agent.model.errors import AgentError, Code


def new_seed() -> bytes:
    """The 32 bytes that a new secret key grows from."""
    return os.urandom(32)


def public_key(seed: bytes) -> bytes:
    """The public key, 32 bytes, of a seed. Raises AgentError where there is no library."""
    library = _load()
    key = library.ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    raw: bytes = key.public_bytes(
        library.serialization.Encoding.Raw, library.serialization.PublicFormat.Raw
    )
    return raw


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature, 64 bytes. Raises AgentError where there is no library."""
    signature: bytes = _load().ed25519.Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    return signature


def is_signed(message: bytes, signature: bytes, *, public: bytes) -> bool:
    """Whether the key's owner signed this. Raises AgentError where there is no library."""
    library = _load()
    try:
        library.ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (library.exceptions.InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Library:
    ed25519: Any
    exceptions: Any
    serialization: Any


def _load() -> _Library:
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise AgentError(
            f"cannot make or check signatures: {error}",
            code=Code.CONFIG_INVALID,
            remedy="Install the library, by: apt install python3-cryptography",
        ) from error
    return _Library(ed25519, exceptions, serialization)
