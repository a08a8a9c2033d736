"""The token and the certificates that the agent shows to Consul, read again when they change."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple

from agent.model.errors import AgentError, Code, from_os_error
from agent.model.settings import ConsulSettings


class Secrets(NamedTuple):
    """What one request is made with. token: "" is the anonymous one. context: for https."""

    token: str
    context: ssl.SSLContext | None


class SecretFiles:
    """Blocks; to be asked before every request: a look at the files' times is all it costs."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._token = ""
        self._token_stamp: object = None
        self._context: ssl.SSLContext | None = None
        self._context_stamp: object = None

    def read(self) -> Secrets:
        """The secrets as they are now; raise AgentError (CONFIG_INVALID) where there are none.

        A file that was read before and is missing for a moment counts as unchanged: not every
        program that renews secrets does so by a rename.
        """
        self._refresh_token()
        if self._settings.address.startswith("https:"):
            self._refresh_context()
        return Secrets(self._token, self._context)

    def _refresh_token(self) -> None:
        path = token_path(self._settings.token_file)
        if path is None:
            return
        try:
            stamp = _stamp(path)
            if stamp != self._token_stamp:
                token = path.read_text("ascii").strip()
                if token or not self._token:  # an empty one is being written just now
                    self._token, self._token_stamp = token, stamp
        except OSError as error:
            if not self._token:
                raise from_os_error(
                    error,
                    f"read Consul's token from {path}",
                    code=Code.CONFIG_INVALID,
                    remedy=_token_remedy(self._settings.token_file),
                ) from error
        except UnicodeDecodeError as error:
            raise AgentError(
                f"cannot read Consul's token from {path}: it is not text",
                code=Code.CONFIG_INVALID,
                remedy="Write the token, and nothing else, into it",
            ) from error

    def _refresh_context(self) -> None:
        settings = self._settings
        paths = [settings.ca_file, settings.cert_file, settings.key_file]
        named, keys = settings.ca_file, ["ca_file"]
        try:
            stamp = [_stamp(Path(path)) for path in paths if path]
            if self._context is None or stamp != self._context_stamp:
                context = ssl.create_default_context(cafile=settings.ca_file or None)
                named = " and ".join(each for each in paths[1:] if each)
                keys = ["cert_file", "key_file"]
                if settings.cert_file:
                    context.load_cert_chain(settings.cert_file, settings.key_file or None, _no)
                self._context, self._context_stamp = context, stamp
        except (OSError, ValueError) as error:  # SSLError is an OSError
            if self._context is None:
                raise _unusable(error, named, keys) from error


def _unusable(error: OSError | ValueError, named: str, keys: list[str]) -> AgentError:
    """named, keys: the files that were being used, and what agent.yaml calls them."""
    path = getattr(error, "filename", None)  # of the one that is not there
    return AgentError(
        f"cannot read Consul's certificates from {path or named}:"
        f" {plain_tls(getattr(error, 'strerror', None) or str(error))}",
        code=Code.CONFIG_INVALID,
        remedy="Correct consul.ca_file, cert_file and key_file in agent.yaml"
        if path
        else f"Set consul.{' and '.join(keys)} in agent.yaml to files in PEM form that belong"
        " together",
    )


def plain_tls(words: str) -> str:
    """What OpenSSL says, without its own names and Python's place in the source."""
    plain = re.sub(r"^\[[^\]]*\] *|\s*\(_ssl\.c:\d+\)$", "", words)
    return "this is not PEM, or not the key to the certificate" if plain == "PEM lib" else plain


def token_path(token_file: str) -> Path | None:
    """Where the token lies: a name without a slash is a credential of the agent's unit.

    systemd.exec(5), LoadCredential=. None: no token is used.
    """
    if not token_file or "/" in token_file:
        return Path(token_file) if token_file else None
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise AgentError(
            f"cannot read the credential {token_file}: the agent's unit was given none",
            code=Code.CONFIG_INVALID,
            remedy=_token_remedy(token_file),
        )
    return Path(folder, token_file)


def _token_remedy(token_file: str) -> str:
    if "/" in token_file:
        return f"Write the token into {token_file}, or correct consul.token_file in agent.yaml"
    return (
        f"Add LoadCredential={token_file}:/path/to/token to the unit (systemctl edit deploy-agent),"
        " and restart the agent; or write a path with a slash into consul.token_file"
    )


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _no() -> str:
    """A key with a password fails, instead of asking the terminal for it."""
    return ""
