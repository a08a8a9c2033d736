"""Every way in which S3 says no has its own message, its own code and its own remedy.

The answers are shaped as AWS documents them; a real server gives few of them on demand.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.model.transfer import S3Place
from agent.remote import s3_upload, stores
from agent.remote.stores import WritableStore
from tests.transfers import HASTY, fetch
from tests.web_server import Request, WebServer, answer, file_answer, web_server

SECRETS = ("very-secret-key", "session-token")
ARN = "arn:aws:sts::222222222222:assumed-role/deploy/i-0abc"


def fault(status: int, code: str, message: str = "No.", extra: str = "", **headers: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    body = f"{head}<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
    return answer(status, body.encode(), content_type="application/xml", **headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS[0])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS[1])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with web_server(lambda request: file_answer(request, b"content")) as server:
        yield server


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
async def store(server: WebServer, warnings: list[str]) -> AsyncIterator[WritableStore]:
    place = S3Place("s3://acme/deploy", region="us-east-1", endpoint=server.url, path_style=True)
    store = stores.open_s3(place, patience=HASTY, warn=warnings.append)
    yield store
    await store.close()


async def failure(store: WritableStore, key: str = "b.zip") -> AgentError:
    with pytest.raises(AgentError) as caught:
        await store.read(key)
    error = caught.value
    said = "\n".join((error.message, *error.details, error.remedy))
    assert not any(secret in said for secret in SECRETS)
    return error


DENIED = f"User: {ARN} is not authorized to perform: {{}} on resource: x because no policy"


@pytest.mark.parametrize(
    ("given", "code", "message", "remedy"),
    [
        (
            fault(403, "AccessDenied", DENIED.format("s3:GetObject")),
            Code.SOURCE_DENIED,
            "(bucket acme, region us-east-1, account 222222222222): s3:GetObject is missing",
            f"Allow s3:GetObject on arn:aws:s3:::acme/deploy/b.zip to {ARN}",
        ),
        (
            fault(403, "AccessDenied", "Access Denied"),
            Code.SOURCE_DENIED,
            "s3:GetObject is missing, as it seems",
            "Allow s3:GetObject on arn:aws:s3:::acme/deploy/b.zip: docs/sources.md has the policy",
        ),
        (
            fault(403, "AccessDenied", DENIED.format("kms:Decrypt")),
            Code.SOURCE_DENIED,
            "kms:Decrypt is missing",
            f"Allow kms:Decrypt on the bucket's KMS key to {ARN}",
        ),
        (
            fault(400, "KMS.DisabledException", "arn:aws:kms:x is disabled."),
            Code.SOURCE_UNAVAILABLE,
            "its KMS key cannot be used (KMS.DisabledException: arn:aws:kms:x is disabled.)",
            "kms:Decrypt",
        ),
        (
            fault(403, "SignatureDoesNotMatch"),
            Code.SOURCE_DENIED,
            "the secret key does not belong to the access key",
            "Check aws_secret_access_key",
        ),
        (
            fault(400, "ExpiredToken"),
            Code.SOURCE_DENIED,
            "the AWS credentials have expired, and no newer ones were found",
            "Renew",
        ),
        (
            fault(403, "InvalidAccessKeyId"),
            Code.SOURCE_DENIED,
            "AWS does not know these credentials",
            "environment, profile, role",
        ),
        (
            fault(
                403,
                "RequestTimeTooSkewed",
                extra="<ServerTime>2026-11-25T12:00:00Z</ServerTime>",
            ),
            Code.SOURCE_DENIED,
            "this host's clock is wrong: S3 says that it is 2026-11-25T12:00:00Z",
            "timedatectl",
        ),
        (
            fault(403, "InvalidObjectState"),
            Code.SOURCE_UNAVAILABLE,
            "it is in an archive class (Glacier)",
            "restore-object",
        ),
        (answer(418), Code.SOURCE_UNAVAILABLE, "HTTP 418", ""),
    ],
)
async def test_refusals(
    server: WebServer, store: WritableStore, given: bytes, code: Code, message: str, remedy: str
) -> None:
    server.answering = lambda _: given
    error = await failure(store)
    assert error.message.startswith("cannot read s3://acme/deploy/b.zip: ")
    assert message in error.message
    assert remedy in error.remedy
    assert (error.code, isinstance(error, TransientError)) == (code, False)


async def test_hidden_behind_403(server: WebServer, store: WritableStore) -> None:
    """Without s3:ListBucket, S3 does not tell a missing object from a forbidden one."""
    server.answering = lambda _: fault(403, "AccessDenied", "Access Denied")
    assert "without s3:ListBucket" in (await failure(store)).details[-1]


async def test_the_permission_of_a_version(
    server: WebServer, store: WritableStore, state_dir: Path
) -> None:
    server.answering = lambda _: fault(403, "AccessDenied", "Access Denied")
    with pytest.raises(AgentError, match="s3:GetObjectVersion is missing"):
        await fetch(store, "b", state_dir / "b", version_id="v1")
    assert server.requests[0].target == "/acme/deploy/b?versionId=v1"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("NoSuchKey", "the bucket acme has no 'deploy/b.zip'"),
        ("NoSuchVersion", "the object has no such version"),
    ],
)
async def test_missing(server: WebServer, store: WritableStore, code: str, message: str) -> None:
    server.answering = lambda _: fault(404, code)
    error = await failure(store)
    assert isinstance(error, NotFound)
    assert message in error.message


async def test_bucket_that_is_missing_is_no_missing_object(
    server: WebServer, store: WritableStore
) -> None:
    server.answering = lambda _: fault(404, "NoSuchBucket")
    error = await failure(store)
    assert not isinstance(error, NotFound)
    assert error.message.endswith("there is no bucket acme")


@pytest.mark.parametrize(
    "given",
    [
        fault(503, "SlowDown"),
        fault(500, "InternalError"),
        fault(400, "RequestTimeout"),
        answer(429),
        answer(502, b"<html>a proxy's</html>"),
    ],
)
async def test_passing_faults_are_tried_again(
    server: WebServer, store: WritableStore, given: bytes
) -> None:
    answers = iter([given, given])
    server.answering = lambda request: next(answers, None) or file_answer(request, b"content")
    assert (await store.read("b")).body == b"content"
    server.answering = lambda _: given
    assert isinstance(await failure(store), TransientError)


@pytest.mark.parametrize(
    "given",
    [
        fault(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        fault(400, "AuthorizationHeaderMalformed", extra="<Region>eu-west-1</Region>"),
        answer(301, x_amz_bucket_region="eu-west-1"),
        answer(400, x_amz_bucket_region="eu-west-1"),
    ],
)
async def test_another_region_is_gone_to_for_reading(
    server: WebServer, store: WritableStore, warnings: list[str], given: bytes
) -> None:
    def answering(request: Request) -> bytes:
        is_right = "/eu-west-1/s3/" in request.headers["authorization"]
        return file_answer(request, b"content") if is_right else given

    server.answering = answering
    assert (await store.read("b")).body == b"content"
    assert len(server.requests) == 2
    assert (await store.read("b")).body == b"content"
    assert len(server.requests) == 3  # it is known from now on
    assert len(warnings) == 1
    assert "set region: eu-west-1" in warnings[0]


async def test_another_region_is_not_written_to(server: WebServer, store: WritableStore) -> None:
    server.answering = lambda _: fault(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")
    elsewhere = "the bucket acme lies in eu-west-1, not in us-east-1"
    with pytest.raises(AgentError, match=elsewhere) as caught:
        await store.write("b", b"content")
    assert caught.value.remedy == "Set region: eu-west-1 beside its url"
    assert len(server.requests) == 1


async def test_no_end_of_regions(server: WebServer, store: WritableStore) -> None:
    def answering(request: Request) -> bytes:
        other = "b" if "/a/s3/" in request.headers["authorization"] else "a"
        return fault(301, "PermanentRedirect", x_amz_bucket_region=other)

    server.answering = answering
    assert "the bucket acme lies in b, not in a" in (await failure(store)).message
    assert len(server.requests) == 2


async def test_a_redirect_within_the_store(server: WebServer, store: WritableStore) -> None:
    """As S3 sends for a new bucket; it is signed anew for where it leads."""

    def answering(request: Request) -> bytes:
        if request.target == "/acme/deploy/b":
            return fault(307, "TemporaryRedirect", location=f"{server.url}/elsewhere/b")
        assert request.target == "/elsewhere/b"
        return file_answer(request, b"content")

    server.answering = answering
    assert (await store.read("b")).body == b"content"
    signatures = [each.headers["authorization"].rpartition("=")[2] for each in server.requests]
    assert signatures[0] != signatures[1]


async def test_a_redirect_out_of_the_store(server: WebServer, store: WritableStore) -> None:
    given = fault(307, "TemporaryRedirect", location="http://localhost.invalid/b")
    server.answering = lambda _: given
    assert "HTTP 307" in (await failure(store)).message
    assert len(server.requests) == 1


SIZELESS = b"<ListBucketResult><Contents><Size>x</Size></Contents></ListBucketResult>"


@pytest.mark.parametrize("body", [b"", b"<html>", SIZELESS])
async def test_lists_that_are_none(server: WebServer, store: WritableStore, body: bytes) -> None:
    server.answering = lambda _: answer(200, body)
    with pytest.raises(AgentError, match="the answer is not S3's"):
        await store.list("")


async def test_an_entity_bomb_is_not_read(server: WebServer, store: WritableStore) -> None:
    bomb = '<!DOCTYPE e [<!ENTITY a "xxxxxxxxxx">]><Error><Code>&a;&a;</Code></Error>'
    server.answering = lambda _: answer(400, bomb.encode())
    assert (await failure(store)).message.endswith("HTTP 400")


async def test_parts_are_removed_where_one_fails(
    server: WebServer, store: WritableStore, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 10)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 1000)
    (state_dir / "b").write_bytes(bytes(5000))

    def answering(request: Request) -> bytes:
        if request.method == "POST":
            return answer(200, b"<R><UploadId>U1</UploadId></R>")
        if request.method == "DELETE":
            return answer(204)
        if "partNumber=3" in request.target:
            return fault(403, "AccessDenied", "Access Denied")
        return answer(200, etag='"p"')

    server.answering = answering
    digest = hashlib.sha256(bytes(5000)).hexdigest()
    with pytest.raises(AgentError, match="s3:PutObject is missing"):
        await store.upload("b", state_dir / "b", sha256=digest, progress=lambda *_: None)
    last = server.requests[-1]
    assert (last.method, last.target) == ("DELETE", "/acme/deploy/b?uploadId=U1")


async def test_a_success_that_is_none(
    server: WebServer, store: WritableStore, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 begins to answer before the parts are together."""
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 10)
    (state_dir / "b").write_bytes(bytes(5000))

    def answering(request: Request) -> bytes:
        if "uploads=" in request.target:
            return answer(200, b"<R><UploadId>U1</UploadId></R>")
        if request.method == "POST":
            return fault(200, "InternalError", "We encountered an internal error.")
        return answer(200, etag='"p"')

    server.answering = answering
    digest = hashlib.sha256(bytes(5000)).hexdigest()
    with pytest.raises(TransientError, match="InternalError"):
        await store.upload("b", state_dir / "b", sha256=digest, progress=lambda *_: None)


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_answer_that_was_lost(
    server: WebServer,
    store: WritableStore,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_there: bool,
) -> None:
    """The parts were put together, and whoever asks again is told that there are none."""
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 10)
    (state_dir / "b").write_bytes(bytes(5000))
    digest = hashlib.sha256(bytes(5000)).hexdigest()
    completed: list[Request] = []

    def answering(request: Request) -> bytes:
        if "uploads=" in request.target:
            return answer(200, b"<R><UploadId>U1</UploadId></R>")
        if request.method == "POST":
            completed.append(request)
            return b"" if len(completed) == 1 else fault(404, "NoSuchUpload")
        if request.method == "HEAD":
            return answer(200, x_amz_meta_sha256=digest) if is_there else answer(404)
        return answer(200, etag='"p"')

    server.answering = answering
    uploading = store.upload("b", state_dir / "b", sha256=digest, progress=lambda *_: None)
    if is_there:
        assert (await uploading).size == 5000
    else:
        with pytest.raises(AgentError, match="NoSuchUpload"):
            await uploading
    assert len(completed) == 2


async def test_an_etag_is_no_digest(
    server: WebServer, store: WritableStore, state_dir: Path
) -> None:
    """Neither that of parts nor that of an object under a KMS key: what came is hashed."""
    server.answering = lambda request: file_answer(request, b"content", etag='"0123abcd-12"')
    fetched = await fetch(store, "b", state_dir / "b")
    assert fetched.sha256 == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (S3Place("https://acme/deploy"), "it is not s3://bucket/prefix"),
        (S3Place("s3://Acme_1/deploy"), "it is not s3://bucket/prefix"),
        (S3Place("s3://acme/a/../b"), "its prefix has"),
        (S3Place("s3://acme/a?b"), "its prefix has"),
        (S3Place("s3://acme/a", region="eu_west.evil.example/"), "is no region"),
        (S3Place("s3://[/a"), "it is not s3://bucket/prefix"),
        (S3Place("s3://acme/a", endpoint="http://x.example:99999"), "is not an http:// or"),
        (S3Place("s3://acme/a", endpoint="acme.example"), "is not an http:// or https:// URL"),
        (S3Place("s3://acme/a", endpoint="https://x.example/y"), "more than scheme, host and port"),
    ],
)
def test_places_that_are_none(place: S3Place, words: str) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        stores.open_s3(place)
    assert caught.value.code is Code.CONFIG_INVALID


def test_without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(AgentError, match="S3 needs botocore, which is not installed") as caught:
        stores.open_s3(S3Place("s3://acme/deploy"))
    assert caught.value.remedy == "apt-get install python3-botocore"


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/./b", "a/"])
def test_keys_stay_in_the_store(store: WritableStore, key: str) -> None:
    with pytest.raises(AgentError, match="leads out of s3://acme/deploy"):
        store.url_of(key)
