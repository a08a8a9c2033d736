"""Calls to Consul through python-consul: loaded late, retried a little, their errors in our words.

The versions of python-consul that are in use (0.7.1 in Debian 12, 1.5.5 in Debian 13, py-consul on
PyPI) differ in what they send for the agent's own API, and in when they send a token. So only the
calls that are the same in all of them are theirs, and token and errors are the transport's.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from agent.consul.transport import NoAnswer, Refusal, Transport, Trouble
from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.model.settings import ConsulSettings

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_OVERRIDING = (
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_SSL_VERIFY",
)
# Consul's words with a 500 for what is not there; newer versions say 404
_MISSING = ("unknown service", "unknown check", "does not have associated ttl", "invalid session")
# its words with a 500 that no repetition cures; with all others it speaks of its servers
_FINAL = ("must be", "missing")

_TLS_ONLY = "HTTP request to an HTTPS server"  # Go's words, with a 400


class Calls:
    """patience_seconds: for how long a call that failed for a while only is made again."""

    def __init__(
        self, settings: ConsulSettings, *, patience_seconds: float, answer_seconds: float
    ) -> None:
        self.transport = Transport(settings, answer_seconds=answer_seconds)
        self.problem: AgentError | None = None
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._library: Any = None
        # the last two: an answer that is not understood, to which the library's own error comes
        self._failures: tuple[type[Exception], ...] = (NoAnswer, Refusal, ValueError, KeyError)
        self._loading = asyncio.Lock()

    async def library(self) -> Any:
        """python-consul on our transport. Raises AgentError (CONFIG_INVALID) where it is missing.

        Loading takes 0.1 s and 5 MB: in a thread, and only where it is needed.
        """
        async with self._loading:
            if self._library is None:
                self._library, error = await asyncio.to_thread(_load, self.transport)
                self._failures += (error,)
        return self._library

    async def call(
        self,
        doing: str,
        ask: Callable[[], Awaitable[T]],
        *,
        rule: str,
        repeats: bool = True,
    ) -> T:
        """What ask() gives; raise TransientError (CONSUL_UNREACHABLE), NotFound or AgentError.

        doing: "read the key a/b in Consul". rule: the line of an ACL policy that allows it.
        repeats: whether it may be done twice.
        """
        end = time.monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                given = await ask()
                self.problem = None
                return given
            except NotFound:
                self.problem = None
                raise
            except AgentError as error:  # of a token or a certificate
                self.problem = error
                raise
            except self._failures as error:
                translated = self._translated(error, doing, rule)
                self.problem = None if isinstance(translated, NotFound) else translated
                # jitter: a fleet must not come back in step
                pause *= random.uniform(0.5, 1.0)  # noqa: S311
                is_over = time.monotonic() + pause > end
                if is_over or not repeats or not isinstance(translated, TransientError):
                    raise translated from error
            await asyncio.sleep(pause)
            pause *= 4

    async def ask_json(
        self,
        method: str,
        doing: str,
        path: str,
        *,
        rule: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        repeats: bool = True,
    ) -> Any:
        """The JSON of an answer, None where it has none; raise NotFound for a 404, or as call."""
        content = b"" if body is None else json.dumps(body).encode()

        async def ask() -> Any:
            answer = await self.transport.ask(method, path, query, content)
            if answer.code == 404:
                raise NotFound(f"cannot {doing}: it is not there", code=Code.NOT_FOUND)
            return json.loads(answer.body) if answer.body else None

        return await self.call(doing, ask, rule=rule, repeats=repeats)

    async def ask_status(self, doing: str, path: str, rule: str) -> int:
        """The HTTP status of a GET whose errors are answers too, all but the 403; raise as call."""

        async def ask() -> int:
            try:
                return (await self.transport.ask("GET", path)).code
            except Refusal as error:
                if error.status == 403:
                    raise
                return error.status

        return await self.call(doing, ask, rule=rule)

    def _translated(self, error: Exception, doing: str, rule: str) -> AgentError:
        address = self._settings.address
        if isinstance(error, NoAnswer):
            return TransientError(
                f"cannot {doing} at {address}: {error}",
                code=Code.CONSUL_UNREACHABLE,
                remedy=_remedy(error, address),
            )
        if not isinstance(error, Refusal):
            return AgentError(
                f"cannot {doing}: what answers at {address} does not answer as Consul does",
                code=Code.CONSUL_REFUSED,
                details=(f"{type(error).__name__}: {error}"[:300],),
                remedy="Correct consul.address in agent.yaml",
            )
        if error.status == 403:
            return self._denied(error, doing, rule)
        if _TLS_ONLY in error.reason:
            return AgentError(
                f"cannot {doing}: what answers at {address} speaks TLS only",
                code=Code.CONSUL_REFUSED,
                remedy="Write https:// into consul.address in agent.yaml",
            )
        reason = f"Consul says {error.status}: {error.reason}"
        if any(each in error.reason.lower() for each in _MISSING):
            return NotFound(f"cannot {doing}: {reason}", code=Code.NOT_FOUND)
        is_final = any(each in error.reason.lower() for each in _FINAL)
        if error.status == 429 or (error.status >= 500 and not is_final):
            return TransientError(
                f"cannot {doing}: {reason}",
                code=Code.CONSUL_UNREACHABLE,
                remedy="Raise limits.rpc_rate of the Consul agent, or see who asks it so often"
                if error.status == 429
                else "See how Consul's servers are: consul operator raft list-peers",
            )
        return AgentError(f"cannot {doing}: {reason}", code=Code.CONSUL_REFUSED)

    def _denied(self, error: Refusal, doing: str, rule: str) -> AgentError:
        token_file = self._settings.token_file
        if "acl not found" in error.reason.lower():
            return AgentError(
                f"cannot {doing}: Consul does not know the token in {token_file}",
                code=Code.CONSUL_DENIED,
                remedy=f"Write a token that exists into {token_file}; it is read again by itself",
            )
        whose = f"the token in {token_file}" if token_file else "an agent without a token"
        return AgentError(
            f"cannot {doing}: Consul denies it to {whose}",
            code=Code.CONSUL_DENIED,
            details=(error.reason,),
            remedy=f"Add to the policy of its token: {rule}"
            if token_file
            else f"Set consul.token_file in agent.yaml to a token whose policy has: {rule}",
        )


def _remedy(error: NoAnswer, address: str) -> str:
    match error.trouble:
        case Trouble.CERTIFICATE:
            place = address.partition("://")[2]
            return (
                f"See what it shows: openssl s_client -connect {place} </dev/null | openssl x509"
                " -noout -issuer -dates -ext subjectAltName; then set consul.ca_file and address"
                " in agent.yaml by it"
            )
        case Trouble.OURS:
            return (
                "Set consul.cert_file and key_file in agent.yaml to a certificate that Consul's"
                " ca_file has signed"
            )
        case Trouble.NO_TLS:
            return (
                "Set consul.address in agent.yaml to the port of Consul's HTTPS API (its"
                " ports.https), or to http://"
            )
        case Trouble.NAME:
            return "Correct consul.address in agent.yaml; as a rule it is 127.0.0.1"
        case Trouble.CUT:
            return (
                "See whether the Consul agent runs: systemctl status consul. One that runs closes"
                " what is beyond its limits.http_max_conns_per_client"
            )
        case Trouble.OTHER:
            return (
                "See whether the Consul agent runs, and listens there: systemctl status consul;"
                " ss -ltnp | grep consul"
            )


def _load(transport: Transport) -> tuple[Any, type[Exception]]:
    """The client, and what it raises for an answer that it does not understand."""
    try:
        from consul import base
    except ImportError as error:
        raise AgentError(
            f"cannot use Consul: the Python library consul cannot be loaded: {error}",
            code=Code.CONFIG_INVALID,
            remedy="Install it: apt install python3-consul",
        ) from error

    class Client(base.Consul):  # type: ignore[misc, unused-ignore]
        """python-consul with our transport; versions differ in how they ask for theirs."""

        def connect(self, *_args: object, **_options: object) -> Transport:
            return transport

        http_connect = connect

    with _without_environment():
        return Client(), base.ConsulException


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide the variables by which python-consul would override its arguments, or fail."""
    hidden = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
