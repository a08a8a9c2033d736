"""https to Consul: the right authority, a wrong one, and a certificate of the agent's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.consul.adapter import Consul
from agent.model.errors import AgentError, Code
from agent.model.settings import ConsulSettings
from tests import consul_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return consul_server.make_authority(tmp_path_factory.mktemp("tls") / "right")


@pytest.fixture(scope="module")
def settings(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulSettings]:
    """Of an agent that may use a Consul which asks for a client's certificate, too."""
    [port] = consul_server.free_ports(1)
    server = consul_server.server(
        tmp_path_factory.mktemp("consul") / "server",
        ports={"https": port},
        addresses={"https": "127.0.0.1 127.0.0.2"},
        verify_incoming_https=True,
        ca_file=str(authority / "consul-agent-ca.pem"),
        cert_file=str(authority / "dc1-server-consul-0.pem"),
        key_file=str(authority / "dc1-server-consul-0-key.pem"),
    )
    with consul_server.running(server):
        yield server.settings(
            address=f"https://127.0.0.1:{port}",
            ca_file=str(authority / "consul-agent-ca.pem"),
            cert_file=str(authority / "dc1-client-consul-0.pem"),
            key_file=str(authority / "dc1-client-consul-0-key.pem"),
        )


def changed(settings: ConsulSettings, **fields: str) -> Consul:
    names = ("address", "ca_file", "cert_file", "key_file")
    return Consul(
        ConsulSettings(**({name: getattr(settings, name) for name in names} | fields)),
        patience_seconds=0.1,
    )


async def failing(consul: Consul) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await consul.read_kv("a")
    await consul.close()
    return caught.value


async def test_the_right_certificates(settings: ConsulSettings) -> None:
    consul = Consul(settings)
    assert await consul.put_kv("a", b"1")
    assert (await consul.read_self()).datacenter == "dc1"
    await consul.close()


async def test_a_wrong_authority(settings: ConsulSettings, tmp_path: Path) -> None:
    wrong = consul_server.make_authority(tmp_path / "wrong") / "consul-agent-ca.pem"
    for ca_file in (str(wrong), ""):  # "": the host's own authorities
        error = await failing(changed(settings, ca_file=ca_file))
        assert error.code is Code.CONSUL_UNREACHABLE
        assert "certificate is not accepted" in error.message
        assert "consul.ca_file" in error.remedy


async def test_a_name_that_the_certificate_does_not_have(settings: ConsulSettings) -> None:
    other = settings.address.replace("127.0.0.1", "127.0.0.2")
    error = await failing(changed(settings, address=other))
    assert "certificate is not accepted" in error.message


async def test_without_a_certificate_of_its_own(settings: ConsulSettings) -> None:
    error = await failing(changed(settings, cert_file="", key_file=""))
    assert error.code is Code.CONSUL_UNREACHABLE
    assert "TLS failed" in error.message
    assert "cert_file" in error.remedy


async def test_files_that_are_no_certificates(settings: ConsulSettings, tmp_path: Path) -> None:
    path = tmp_path / "nothing.pem"
    path.write_text("nothing")
    for field in ("ca_file", "cert_file", "key_file"):
        for text in (str(path), str(tmp_path / "missing.pem")):
            error = await failing(changed(settings, **{field: text}))
            assert error.code is Code.CONFIG_INVALID
            assert text in error.message
            assert settings.ca_file not in error.message
            assert "_ssl.c" not in error.message
            assert f"consul.{'ca' if field == 'ca_file' else 'c'}" in error.remedy


async def test_certificates_are_read_again_when_they_change(
    settings: ConsulSettings, authority: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    wrong = consul_server.make_authority(tmp_path / "wrong")
    shutil.copy(authority / "consul-agent-ca.pem", path)
    consul = changed(settings, ca_file=str(path))
    await consul.read_kv("a")
    shutil.copy(wrong / "consul-agent-ca.pem", path)
    with pytest.raises(AgentError):
        await consul.read_kv("a")
    shutil.copy(authority / "consul-agent-ca.pem", path)
    await consul.read_kv("a")
    await consul.close()


async def test_https_where_none_is_spoken(settings: ConsulSettings, tmp_path: Path) -> None:
    with consul_server.running(plain := consul_server.server(tmp_path / "plain")):
        error = await failing(changed(settings, address=plain.url.replace("http:", "https:")))
    assert error.message.endswith("what answers there speaks no TLS")
    assert "http://" in error.remedy
    error = await failing(changed(settings, address=settings.address.replace("https:", "http:")))
    assert error.message.endswith("speaks TLS only")
    assert "https://" in error.remedy


async def test_a_name_that_nobody_knows(settings: ConsulSettings) -> None:
    error = await failing(changed(settings, address="https://consul.invalid:8501"))
    assert error.code is Code.CONSUL_UNREACHABLE
    assert "consul.address" in error.remedy


async def test_a_credential_that_the_unit_was_not_given(
    settings: ConsulSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The agent starts all the same, and says it when it needs the token."""
    for folder in ("", str(tmp_path)):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", folder)
        error = await failing(changed(settings, token_file="consul-token"))
        assert error.code is Code.CONFIG_INVALID
        assert "LoadCredential=consul-token:" in error.remedy
