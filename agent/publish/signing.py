"""The keys of an environment: with which its manifests are signed, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.formats import minisign
from agent.model.environments import Environment, Environments
from agent.model.errors import AgentError, Code
from agent.system import secret_key
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey


@dataclass(frozen=True, slots=True)
class Keys:
    """secret: None where nothing is signed. ring: None where nothing has to be signed."""

    secret: SecretKey | None = None
    ring: KeyRing | None = None

    def sign(self, text: bytes, *, comment: str) -> bytes:
        """The .minisig of a text; b"" where nothing is signed."""
        return self.secret.sign(text, trusted_comment=comment) if self.secret else b""


def load_to_publish(environment: Environment) -> Keys:
    """The keys to publish with; takes seconds where the secret one has a password.

    Raises AgentError where one is named and not to be had: unsigned is no way out then.
    """
    if not environment.keys.is_named:
        return Keys()
    if not environment.keys.is_secret_named:
        raise AgentError(
            f"cannot sign for {environment.name}: it has a public_key, and no key to sign with",
            code=Code.CONFIG_INVALID,
            remedy="Name the secret key in the environments file, by key or key_env",
        )
    secret = _secret(environment)
    public = environment.keys.public_path
    if public is not None and _public(public) != secret.public:
        signs = minisign.shown_id(secret.public.id)
        raise AgentError(
            f"cannot sign for {environment.name}: its key {signs} does not belong to {public}",
            code=Code.CONFIG_INVALID,
            remedy="Name the two files of one pair of keys, see: agentctl key show",
        )
    return Keys(secret, KeyRing([secret.public], folder=public or _named(environment)))


def load_to_check(environment: Environment) -> KeyRing | None:
    """The key that what stands in an environment must be signed with; None: it need not be.

    Raises AgentError where one is named and not to be had.
    """
    if not environment.keys.is_named:
        return None
    if environment.keys.public_path is not None:
        path = environment.keys.public_path
        return KeyRing([_public(path)], folder=path)
    try:
        return KeyRing([_secret(environment).public], folder=_named(environment))
    except AgentError as error:
        raise AgentError(
            f"cannot check what stands in {environment.name}: {_cause(error)}",
            code=error.code,
            remedy=f"Name its public key in the environments file: public_key: {_SOME_FILE}",
        ) from error


def load_rings(known: Environments, *, warn: Callable[[str], None]) -> dict[str, KeyRing | None]:
    """What load_to_check gives, for all environments; to look at them without trusting them.

    Where a key is not to be had, `warn` is told, and nothing is checked.
    """
    rings: dict[str, KeyRing | None] = {}
    for environment in known.all:
        rings[environment.name] = None
        try:
            rings[environment.name] = load_to_check(environment)
        except AgentError as error:
            warn(f"signatures in {environment.name} are not looked at: {_cause(error)}")
    return rings


_SOME_FILE = "keys/minisign.pub"


def _secret(environment: Environment) -> SecretKey:
    keys = environment.keys
    password = _variable(environment, keys.password_variable) if keys.password_variable else ""
    if keys.path is not None:
        return SecretKey.load(keys.path, password=password)
    text = _variable(environment, keys.variable)
    return SecretKey.parse(text.encode(), password=password, where=f"the key in {keys.variable}")


def _variable(environment: Environment, name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise AgentError(
            f"cannot sign for {environment.name}: the variable {name} is not set",
            code=Code.BAD_REQUEST,
            remedy=f"Let the CI server set {name}, from where it keeps secrets",
        )
    return value


def _public(path: Path) -> minisign.PublicKey:
    try:
        return minisign.parse_public_key(secret_key.read_key_file(path))
    except ValueError as error:
        raise AgentError(
            f"cannot use {path} as a public key: {error}", code=Code.CONFIG_INVALID
        ) from error


def _named(environment: Environment) -> Path:
    return environment.keys.path or Path(environment.keys.variable)


def _cause(error: AgentError) -> str:
    return error.message.partition(": ")[2] or error.message
