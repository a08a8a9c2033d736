"""AWS credentials and signatures: botocore.

Imported late, in a thread, and only where S3 is used: it costs 170 ms and 25 MB.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import threading
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from botocore import auth, awsrequest, exceptions
from botocore import credentials as providers
from botocore import session as sessions

from agent.model.errors import AgentError, Code, TransientError
from agent.remote.web import Call

# somebody to ask, for want of a better one: S3 answers with the right region, STS serves all
_FALLBACK_REGION = "us-east-1"
_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"


@dataclasses.dataclass(frozen=True, slots=True)
class _Keys:
    access_key: str
    secret_key: str = dataclasses.field(repr=False)
    token: str | None = dataclasses.field(repr=False)


class Aws:
    """Credentials by botocore's order, for one profile and role ("" for none), and signing."""

    def __init__(self, *, profile: str, role_arn: str, region: str) -> None:
        self._profile = profile
        self._role_arn = role_arn
        self._region = region
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._last: _Keys | None = None

    async def sign(self, call: Call, *, region: str, body_sha256: str) -> Call:
        """The call with its signature (SigV4, for S3); raises AgentError without credentials."""
        return await asyncio.to_thread(self._sign, call, region, body_sha256)

    async def default_region(self) -> str:
        """The region of the place, the environment or the profile, else one that knows."""
        return await asyncio.to_thread(self._default_region)

    async def read_anew(self) -> bool:
        """Forget the credentials and read them again: whether they are other ones now."""
        return await asyncio.to_thread(self._read_anew)

    def _sign(self, call: Call, region: str, body_sha256: str) -> Call:
        keys = self._freeze()
        return dataclasses.replace(call, headers=_signed_headers(call, keys, region, body_sha256))

    def _default_region(self) -> str:
        try:
            return str(self._open_session().get_config_variable("region"))
        except exceptions.BotoCoreError as error:
            raise _no_credentials(error) from error

    def _read_anew(self) -> bool:
        before = self._last
        with self._lock:
            self._credentials = None
        return self._freeze() != before

    def _freeze(self) -> _Keys:
        """The keys to sign with now; botocore renews those that expire, over the network."""
        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials = self._find()
                frozen = self._credentials.get_frozen_credentials()
            except (exceptions.BotoCoreError, exceptions.ClientError) as error:
                raise _no_credentials(error) from error
            self._last = _Keys(frozen.access_key, frozen.secret_key, frozen.token)
            return self._last

    def _find(self) -> Any:
        session = self._open_session()
        credentials = session.get_credentials()
        if credentials is None:
            files = [session.get_config_variable(n) for n in ("credentials_file", "config_file")]
            raise AgentError(
                "cannot find AWS credentials: none in the environment (AWS_ACCESS_KEY_ID,"
                f" AWS_WEB_IDENTITY_TOKEN_FILE), in {' and '.join(map(os.path.expanduser, files))},"
                " from a container's endpoint or from an EC2 role (IMDS)",
                code=Code.SOURCE_DENIED,
                remedy="Attach a role to this machine, or name a profile: docs/sources.md",
            )
        return self._assume(session, credentials) if self._role_arn else credentials

    def _assume(self, session: Any, credentials: Any) -> Any:
        fetcher = providers.AssumeRoleCredentialFetcher(
            client_creator=session.create_client,
            source_credentials=credentials,
            role_arn=self._role_arn,
            extra_args={"RoleSessionName": f"deploy-agent-{socket.gethostname()}"[:64]},
        )
        return providers.DeferredRefreshableCredentials(
            refresh_using=fetcher.fetch_credentials, method="assume-role"
        )

    def _open_session(self) -> Any:
        _keep_metadata_off_proxies()
        session = sessions.Session(profile=self._profile or None)
        # also for a slow start of the network; each attempt takes a second at most
        session.set_config_variable("metadata_service_num_attempts", 2)
        known = self._region or os.environ.get("AWS_REGION")  # which botocore does not read
        known = known or session.get_config_variable("region")
        session.set_config_variable("region", known or _FALLBACK_REGION)
        # an endpoint in the region works where the global one is out of reach
        session.set_config_variable("sts_regional_endpoints", "regional")
        return session


class _Signer(auth.S3SigV4Auth):  # type: ignore[misc]
    """Signs the digest that is known already, instead of reading a body."""

    def __init__(self, keys: _Keys, region: str, body_sha256: str) -> None:
        super().__init__(keys, "s3", region)
        self._body_sha256 = body_sha256

    def payload(self, request: Any) -> str:  # noqa: ARG002 - botocore's signature
        return self._body_sha256


def _signed_headers(call: Call, keys: _Keys, region: str, body_sha256: str) -> dict[str, str]:
    request = awsrequest.AWSRequest(call.method, call.url, dict(call.headers))
    _Signer(keys, region, body_sha256).add_auth(request)
    return dict(request.headers.items())


def _keep_metadata_off_proxies() -> None:
    """Else botocore asks IMDS through HTTP_PROXY, and no proxy can answer that."""
    proxies = urllib.request.getproxies_environment()
    if not proxies:
        return
    own = ["169.254.169.254", "[fd00:ec2::254]"]
    if os.environ.get(_ENDPOINT):
        own.append(urlsplit(os.environ[_ENDPOINT]).netloc)
    known = proxies.get("no", "")
    missing = [host for host in own if host not in known]
    if missing and known != "*":
        os.environ["no_proxy"] = ",".join([*filter(None, [known]), *missing])


def _no_credentials(error: Exception) -> AgentError:
    """Its sentences name files, profiles and roles, and no secret."""
    passing = (exceptions.HTTPClientError, exceptions.CredentialRetrievalError)
    kind = TransientError if isinstance(error, passing) else AgentError
    return kind(
        f"cannot load AWS credentials: {str(error)[:300]}",
        code=Code.SOURCE_DENIED,
        remedy="Check the profile, the role, and who may assume it: docs/sources.md",
    )
