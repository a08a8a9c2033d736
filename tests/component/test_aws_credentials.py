"""AWS credentials: where they are found, how they are renewed, and what is said without them."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import botocore
import pytest

from agent.model.errors import AgentError, Code
from agent.model.transfer import S3Place
from agent.remote import stores
from agent.remote.stores import WritableStore
from tests.transfers import PATIENT, fetch
from tests.web_server import Request, WebServer, answer, file_answer, web_server

BODY = random.Random(7).randbytes(2 * 2**20)
DEAD = "http://127.0.0.1:1"


def key_of(request: Request) -> str:
    """Whose signature it is."""
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.fixture
def server() -> Iterator[WebServer]:
    """The bucket."""
    with web_server(lambda request: file_answer(request, BODY)) as server:
        yield server


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> Path:
    """A home folder without credentials, and none anywhere else."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(state_dir))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (state_dir / ".aws").mkdir()
    return state_dir


@asynccontextmanager
async def opened(server: WebServer, **place: str) -> AsyncIterator[WritableStore]:
    where = S3Place("s3://acme", "us-east-1", server.url, path_style=True, **place)
    store = stores.open_s3(where, patience=PATIENT)
    yield store
    await store.close()


def write_profile(home: Path, name: str, key: str) -> None:
    lines = (f"[{name}]", f"aws_access_key_id = {key}", "aws_secret_access_key = secret")
    (home / ".aws/credentials").write_text("\n".join(lines))


async def test_none_says_where_was_looked(server: WebServer, home: Path) -> None:
    async with opened(server) as store:
        with pytest.raises(AgentError, match="cannot find AWS credentials") as caught:
            await store.read("b")
    assert "AWS_ACCESS_KEY_ID" in caught.value.message
    assert f"{home}/.aws/credentials and {home}/.aws/config" in caught.value.message
    assert caught.value.code is Code.SOURCE_DENIED
    assert server.requests == []


async def test_environment(server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(home, "default", "AKIAFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-session")
    async with opened(server) as store:
        await store.read("b", limit_bytes=2**22)
    assert key_of(server.requests[0]) == "AKIAENV"
    assert server.requests[0].headers["x-amz-security-token"] == "of-a-session"


async def test_a_profile_is_stronger_than_the_environment(
    server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(home, "deploy", "AKIAPROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with opened(server, profile="deploy") as store:
        await store.head("b")
    assert key_of(server.requests[0]) == "AKIAPROFILE"


async def test_a_profile_that_is_not_there(server: WebServer, home: Path) -> None:
    async with opened(server, profile="deploy") as store:
        with pytest.raises(AgentError, match="deploy") as caught:
            await store.head("b")
    assert caught.value.code is Code.SOURCE_DENIED


async def test_rotation_in_the_middle_of_a_download(
    server: WebServer, home: Path, state_dir: Path
) -> None:
    """The connection breaks, and by then the old keys have expired."""
    write_profile(home, "default", "AKIAOLD")

    def answering(request: Request) -> bytes:
        if len(server.requests) == 1:
            write_profile(home, "default", "AKIANEW")
            whole = file_answer(request, BODY)
            return whole[: len(whole) - 2**20]
        if key_of(request) == "AKIAOLD":
            return answer(400, b"<Error><Code>ExpiredToken</Code></Error>")
        return file_answer(request, BODY)

    server.answering = answering
    async with opened(server) as store:
        await fetch(store, "b", state_dir / "b")
    assert (state_dir / "b").read_bytes() == BODY
    start = server.requests[1].start
    assert start > 0
    assert [(key_of(each), each.start) for each in server.requests] == [
        ("AKIAOLD", 0),
        ("AKIAOLD", start),
        ("AKIANEW", start),
    ]


async def test_refused_keys_are_read_again_once(server: WebServer, home: Path) -> None:
    """The same ones are not tried again."""
    write_profile(home, "default", "AKIAOLD")
    server.answering = lambda _: answer(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
    async with opened(server) as store:
        with pytest.raises(AgentError, match="AWS does not know"):
            await store.read("b")
    assert len(server.requests) == 1


STS = """<{action}Response><{action}Result><Credentials><AccessKeyId>ASIA{action}</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>t-{action}</SessionToken>
<Expiration>{expires}</Expiration></Credentials></{action}Result></{action}Response>"""


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """AWS's security token service, as far as it gives out a role's credentials."""
    version = tuple(int(part) for part in botocore.__version__.split(".")[:2])
    if version < (1, 31):
        pytest.skip("this botocore asks for roles at AWS only: 1.31 knows AWS_ENDPOINT_URL_STS")

    def answering(request: Request) -> bytes:
        asked = parse_qs(request.body.decode())
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer(200, STS.format(action=asked["Action"][0], expires=expires).encode())

    with web_server(answering) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        yield sts


async def test_a_role_is_assumed(server: WebServer, sts: WebServer, home: Path) -> None:
    write_profile(home, "deploy", "AKIABASE")
    role = "arn:aws:iam::222222222222:role/deploy"
    async with opened(server, profile="deploy", role_arn=role) as store:
        await store.head("b")
        await store.head("b")
    assert key_of(sts.requests[0]) == "AKIABASE"
    asked = parse_qs(sts.requests[0].body.decode())
    assert asked["RoleArn"] == [role]
    assert asked["RoleSessionName"][0].startswith("deploy-agent-")
    assert [key_of(each) for each in server.requests] == ["ASIAAssumeRole"] * 2
    assert server.requests[0].headers["x-amz-security-token"] == "t-AssumeRole"
    assert len(sts.requests) == 1


async def test_a_role_that_may_not_be_assumed(
    server: WebServer, sts: WebServer, home: Path
) -> None:
    write_profile(home, "default", "AKIABASE")
    sts.answering = lambda _: answer(
        403,
        b"<ErrorResponse><Error><Code>AccessDenied</Code>"
        b"<Message>not authorized to assume</Message></Error></ErrorResponse>",
    )
    async with opened(server, role_arn="arn:aws:iam::222222222222:role/deploy") as store:
        with pytest.raises(AgentError, match="not authorized to assume") as caught:
            await store.head("b")
    assert caught.value.code is Code.SOURCE_DENIED


async def test_web_identity(
    server: WebServer, sts: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text("from-the-cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::222222222222:role/pod")
    async with opened(server) as store:
        await store.head("b")
    assert parse_qs(sts.requests[0].body.decode())["WebIdentityToken"] == ["from-the-cluster"]
    assert key_of(server.requests[0]) == "ASIAAssumeRoleWithWebIdentity"


@pytest.fixture
def imds(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """The role of an EC2 host, by IMDSv2 only; and a proxy that answers nobody."""

    def answering(request: Request) -> bytes:
        if request.method == "PUT":
            return answer(200, b"TOKEN")
        if request.headers.get("x-aws-ec2-metadata-token") != "TOKEN":
            return answer(401)
        if request.target.endswith("/security-credentials/"):
            return answer(200, b"ec2-role")
        keys = {"AccessKeyId": "ASIAEC2", "SecretAccessKey": "s", "Token": "t", "Code": "Success"}
        expires = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return answer(200, json.dumps({**keys, "Expiration": expires}).encode())

    with web_server(answering) as imds:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("http_proxy", DEAD)
        monkeypatch.setenv("https_proxy", DEAD)
        yield imds


async def test_the_role_of_an_ec2_host(server: WebServer, imds: WebServer) -> None:
    """IMDS is asked without the proxy that the environment names."""
    async with opened(server) as store:
        await store.head("b")
    assert key_of(server.requests[0]) == "ASIAEC2"
    assert server.requests[0].headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize(
    ("named", "region"),
    [
        ({}, "eu-north-1"),
        ({"AWS_DEFAULT_REGION": "eu-south-1"}, "eu-south-1"),
        ({"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-south-1"}, "eu-west-3"),
    ],
)
async def test_region_of_environment_and_profile(
    server: WebServer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: dict[str, str],
    region: str,
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    write_profile(home, "default", "AKIAFILE")
    (home / ".aws/config").write_text("[default]\nregion = eu-north-1\n")
    place = S3Place("s3://acme", endpoint=server.url, path_style=True)
    store = stores.open_s3(place, patience=PATIENT)
    await store.head("b")
    await store.close()
    assert f"/{region}/s3/aws4_request" in server.requests[0].headers["authorization"]
