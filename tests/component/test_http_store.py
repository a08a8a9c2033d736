"""A web server as a store: who gets the token, which redirects count, and what went wrong."""

from __future__ import annotations

import base64
import dataclasses
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.model.errors import AgentError, Code, NotFound, TransientError
from agent.remote import stores
from agent.remote.stores import Store
from tests.transfers import HASTY
from tests.web_server import Request, WebServer, answer, file_answer, web_server

TOKEN = "hunter2-token"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server(lambda request: file_answer(request, b"content")) as server:
        yield server


@pytest.fixture
def other() -> Iterator[WebServer]:
    with web_server(lambda request: file_answer(request, b"from the other")) as other:
        yield other


@pytest.fixture
async def store(server: WebServer) -> AsyncIterator[Store]:
    store = stores.open_http(f"{server.url}/base/", token=TOKEN, patience=HASTY)
    yield store
    await store.close()


async def failure(store: Store) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await store.read("b")
    await store.close()
    said = "\n".join((caught.value.message, *caught.value.details, caught.value.remedy))
    assert TOKEN not in said
    return caught.value


async def test_a_pointer_is_polled(server: WebServer, store: Store) -> None:
    first = await store.read("app/default/release.json")
    assert first.body == b"content"
    assert (await store.read("app/default/release.json", etag=first.etag)).body is None
    request = server.requests[0]
    assert request.target == "/base/app/default/release.json"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_too_large_for_a_pointer(store: Store) -> None:
    with pytest.raises(AgentError, match="it is larger than 3 bytes"):
        await store.read("b", limit_bytes=3)


async def test_keys_are_quoted(server: WebServer, store: Store) -> None:
    await store.read("a b+é/?#%.zip")
    assert server.requests[0].target == "/base/a%20b%2B%C3%A9/%3F%23%25.zip"


async def test_a_redirect_within_keeps_the_token(server: WebServer, store: Store) -> None:
    def answering(request: Request) -> bytes:
        if request.target == "/base/b":
            return answer(302, location="../elsewhere")
        return file_answer(request, b"content")

    server.answering = answering
    assert (await store.read("b")).body == b"content"
    assert server.requests[1].target == "/elsewhere"
    assert server.requests[1].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_redirect_to_others_does_not_take_the_token(
    server: WebServer, other: WebServer, store: Store
) -> None:
    """Not even back again: who was redirected there may know more than it should."""
    server.answering = lambda request: (
        file_answer(request, b"content")
        if request.target == "/back"
        else answer(307, location=f"{other.url}/x")
    )
    assert (await store.read("b")).body == b"from the other"
    other.answering = lambda _: answer(302, location=f"{server.url}/back")
    assert (await store.read("b")).body == b"content"
    assert all("authorization" not in each.headers for each in other.requests)
    assert "authorization" not in server.requests[-1].headers


async def test_redirects_end(server: WebServer, store: Store) -> None:
    server.answering = lambda _: answer(302, location="/again")
    assert "redirected more than 5 times" in (await failure(store)).message
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("location", "where"), [("file:///etc/shadow", "file"), ("http://[", "nowhere")]
)
async def test_a_redirect_to_no_server(
    server: WebServer, store: Store, location: str, where: str
) -> None:
    server.answering = lambda _: answer(302, location=location)
    assert f"it is redirected from http to {where}" in (await failure(store)).message


@pytest.mark.parametrize("status", [401, 403])
async def test_denied(server: WebServer, store: Store, status: int) -> None:
    server.answering = lambda _: answer(status)
    error = await failure(store)
    assert f"access denied (HTTP {status}), the token was refused" in error.message
    assert error.code is Code.SOURCE_DENIED
    without = await failure(stores.open_http(server.url, patience=HASTY))
    assert "no token is set for it" in without.message


async def test_missing(server: WebServer, store: Store) -> None:
    server.answering = lambda _: answer(404)
    assert isinstance(await failure(store), NotFound)


async def test_connection_refused(server: WebServer, store: Store) -> None:
    server.close()
    error = await failure(store)
    assert error.message == f"cannot read {server.url}/base/b: connection refused"
    assert isinstance(error, TransientError)


async def test_unknown_name() -> None:
    error = await failure(stores.open_http("http://nowhere.invalid", patience=HASTY))
    assert "the name nowhere.invalid is not known" in error.message
    assert "getent hosts nowhere.invalid" in error.remedy


async def test_no_tls_there(server: WebServer) -> None:
    url = server.url.replace("http:", "https:")
    assert "TLS failed" in (await failure(stores.open_http(url, patience=HASTY))).message


async def test_not_http(server: WebServer, store: Store) -> None:
    server.answering = lambda _: b"SSH-2.0-OpenSSH_9.2\r\n"
    assert "its answer is not HTTP" in (await failure(store)).message


async def test_closed_without_an_answer(server: WebServer, store: Store) -> None:
    server.answering = lambda _: b""
    assert "closed without an answer" in (await failure(store)).message


async def test_an_untrusted_certificate(state_dir: Path, certificate: ssl.SSLContext) -> None:
    with web_server(lambda request: file_answer(request, b"x"), certificate) as server:
        error = await failure(stores.open_http(server.url, token=TOKEN, patience=HASTY))
    assert "its TLS certificate is not trusted: self-signed certificate" in error.message
    assert "update-ca-certificates" in error.remedy
    assert server.requests == []


@pytest.fixture
def certificate(state_dir: Path) -> ssl.SSLContext:
    key, cert = state_dir / "key.pem", state_dir / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("ftp://x.example/", "", "is not an http:// or https:// URL"),
        ("http://[/", "", "is not an http:// or https:// URL"),
        ("https://x.example:99999/", "", "is not an http:// or https:// URL"),
        ("https:///path", "", "is not an http:// or https:// URL"),
        ("https://user:hunter2-token@x.example/", "", "the URL of x.example has a password"),
        ("https://x.example/?sig=hunter2-token", "", "the URL of x.example has a password"),
        ("http://x.example/", TOKEN, "the token for x.example would be sent without TLS"),
        ("https://x.example/", "two\nlines", "the token is not one line"),
    ],
)
def test_urls_that_are_none(url: str, token: str, words: str) -> None:
    with pytest.raises(AgentError, match=words) as caught:
        stores.open_http(url, token=token)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", "a//b", "."])
def test_keys_stay_in_the_store(store: Store, key: str) -> None:
    with pytest.raises(AgentError, match="leads out of the store"):
        store.url_of(key)


async def test_through_a_proxy(other: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", other.url.replace("//", "//user:p%40ss@"))
    store = stores.open_http("http://nowhere.invalid/base", patience=HASTY)
    assert (await store.read("b")).body == b"from the other"
    await store.close()
    request = other.requests[0]
    assert request.target == "http://nowhere.invalid/base/b"
    expected = base64.b64encode(b"user:p@ss").decode()
    assert request.headers["proxy-authorization"] == f"Basic {expected}"


async def test_a_proxy_that_refuses(other: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    other.answering = lambda _: answer(407)
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{other.port}")
    store = stores.open_http("https://nowhere.invalid/base", token=TOKEN, patience=HASTY)
    error = await failure(store)
    assert "the proxy refused it: HTTP 407" in error.message
    assert "HTTPS_PROXY" in error.remedy
    assert other.requests[0].method == "CONNECT"
    assert "authorization" not in other.requests[0].headers


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:hunter2-token@127.0.0.1:1")
    error = await failure(stores.open_http("http://nowhere.invalid", patience=HASTY))
    assert "the proxy 127.0.0.1:1 does not answer: connection refused" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_proxy_to_this_host(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    store = stores.open_http(f"http://{host}:{server.port}", patience=HASTY)
    assert (await store.read("b")).body == b"content"
    await store.close()


async def test_no_proxy_where_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked up, and not found, which a proxy would have done."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", ".invalid")
    error = await failure(stores.open_http("http://nowhere.invalid", patience=HASTY))
    assert "the name nowhere.invalid is not known" in error.message


@pytest.mark.slow
async def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full lets new connections wait."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(full.getsockname())
            waiting.append(each)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        quick = dataclasses.replace(HASTY, attempts=1, connect=0.2)
        error = await failure(stores.open_http(url, patience=quick))
        for each in waiting:
            each.close()
    assert "no connection within 0.2 s" in error.message
