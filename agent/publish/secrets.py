"""Looks for what must not travel in a bundle: private keys, passwords, cloud credentials.

A bundle lies readable in stores and on hosts for years. What is looked for are files that hold
nothing else by their name, and keys that are recognized for certain by their text. Sources:
RFC 7468 (PEM), RFC 4880 6.2 (armour), minisign's format of secret keys, AWS's IAM identifiers.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from agent.model.appspec import Problem, Severity
from agent.publish import ignore

_NAMES = {
    ".netrc": "passwords of network accounts",
    ".pgpass": "passwords of databases",
    ".git-credentials": "passwords of git",
    "id_rsa": "a private key of ssh",
    "id_dsa": "a private key of ssh",
    "id_ecdsa": "a private key of ssh",
    "id_ed25519": "a private key of ssh",
}
_SUFFIXES = {
    ".p12": "a key store",
    ".pfx": "a key store",
    ".jks": "a key store",
    ".keystore": "a key store",
}
_ENV_WITHOUT_SECRETS = {".env.dist", ".env.example", ".env.sample", ".env.template"}

# Text of a program or a manual names the armour too; a key has its base64 or headers behind it.
# \n may be written as two signs, in JSON.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:\s|\\[nr]|[\"'+,])+(?:[A-Za-z0-9+/=]{16}|[A-Z][A-Za-z-]+: )"
)
# Ed, the kdf (Sc or none), and the checksum B2, as base64; public keys are shorter and begin RWQ
_MINISIGN = re.compile(rb"\bRW(?:RTY0Iy|QAAEIy)[A-Za-z0-9+/]{100}")
_AWS_ID = re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b(?<!EXAMPLE)")
_AWS_SECRET = re.compile(
    rb"(?<![A-Za-z0-9/+])(?![0-9a-f]{40}|[0-9A-F]{40})[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)
_AWS_NEAR_BYTES = 300
_OVERLAP_BYTES = 1024  # longer than what any of the patterns needs around it


def by_name(path: str) -> str:
    """What a file with this path holds by its name alone; "" if that does not tell."""
    name = path.rpartition("/")[2].lower()
    if name == ".env" or (name.startswith(".env.") and name not in _ENV_WITHOUT_SECRETS):
        return "settings with passwords"
    if f"/{path.lower()}".endswith("/.aws/credentials"):
        return "credentials of AWS"
    return _NAMES.get(name) or next(
        (what for suffix, what in _SUFFIXES.items() if name.endswith(suffix)), ""
    )


class Watch:
    """Looks at all that goes into a bundle.

    allowed: paths of files and folders, below `folder`, in which secrets are meant to be.
    """

    def __init__(self, folder: Path, allowed: tuple[str, ...]) -> None:
        self._folder = folder
        self._allowed = frozenset(os.path.normpath(each) for each in allowed)
        self._scan = Scan()
        self._path = ""
        self._problems: list[Problem] = []

    def look(self, path: str, piece: bytes) -> None:
        """Look at the next piece of a file; files come one after the other, each at least once."""
        if path != self._path:
            self._close()
            self._path, self._scan = path, Scan()
        self._scan.feed(piece)

    def problems(self) -> list[Problem]:
        """An error for each secret; call it when all files were seen."""
        self._close()
        return self._problems

    def _close(self) -> None:
        path, self._path = self._path, ""
        if not path or self._is_allowed(path):
            return
        name_tells = by_name(path)
        found = {name_tells: 0} if name_tells else self._scan.found
        allow = f"--allow-secrets {shlex.quote(path)}"
        hint = f"leave it out in {ignore.FILENAME}; or if it is meant to be there: {allow}"
        for what, line in found.items():
            shown = str(self._folder / path)
            message = f"looks like {what}"
            self._problems.append(Problem(Severity.ERROR, shown, line, min(line, 1), message, hint))

    def _is_allowed(self, path: str) -> bool:
        parts = path.split("/")
        return any("/".join(parts[: count + 1]) in self._allowed for count in range(len(parts)))


class Scan:
    """Looks through one file, piece by piece. found: what it holds, with the first line of it."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._tail = b""
        self._line = 1

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the file."""
        window = self._tail + piece
        # these words are found at the speed of memory; the patterns alone would cost a second a GB
        if b"PRIVATE KEY" in window:
            self._note("a private key", _PRIVATE_KEY.search(window))
        if b"RWRTY0Iy" in window or b"RWQAAEIy" in window:
            self._note("a secret key of minisign", _MINISIGN.search(window))
        if b"AKIA" in window or b"ASIA" in window:
            self._note("an access key of AWS with its secret", _aws_key(window))
        end = max(0, len(window) - _OVERLAP_BYTES)
        self._line += window.count(b"\n", 0, end)
        self._tail = window[end:]

    def _note(self, what: str, match: re.Match[bytes] | None) -> None:
        if match and what not in self.found:
            self.found[what] = self._line + match.string.count(b"\n", 0, match.start())


def _aws_key(window: bytes) -> re.Match[bytes] | None:
    """The first access key id that has a secret close to it."""
    for match in _AWS_ID.finditer(window):
        start = max(0, match.start() - _AWS_NEAR_BYTES)
        if _AWS_SECRET.search(window, start, match.end() + _AWS_NEAR_BYTES):
            return match
    return None
