"""Where revisions are published to: environments with their targets, as deploy.yaml names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.model.transfer import S3Place


@dataclass(frozen=True, slots=True)
class Target:
    """One place of an environment. groups: the deployment groups whose pointers are here."""

    name: str
    place: S3Place
    groups: tuple[str, ...] = ("default",)


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Where an environment's keys are. path, or variable with the text of the file, or neither.

    password_variable: "" for a key without password. public_path: to check signatures without
    the secret key; None to take the public part of that one.
    """

    path: Path | None = None
    variable: str = ""
    password_variable: str = ""
    public_path: Path | None = None

    @property
    def is_secret_named(self) -> bool:
        """Whether what is published here is signed."""
        return self.path is not None or bool(self.variable)

    @property
    def is_named(self) -> bool:
        """Whether what stands here must be signed."""
        return self.is_secret_named or self.public_path is not None


@dataclass(frozen=True, slots=True)
class Environment:
    """A named set of targets. expires_seconds: of a manifest from its publication; 0.0 never.

    requires: the environments that a version must come from; empty where push may publish.
    """

    name: str
    targets: tuple[Target, ...]
    keys: KeySettings = KeySettings()
    expires_seconds: float = 0.0
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environments:
    """A file of environments, in its order."""

    file: Path
    all: tuple[Environment, ...]
