"""Which keys an environment is published and checked with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.formats import minisign
from agent.model.environments import Environment, Environments, KeySettings
from agent.model.errors import AgentError
from agent.publish import signing
from agent.system.secret_key import SecretKey


@pytest.fixture
def secret() -> SecretKey:
    return SecretKey.generate()


@pytest.fixture
def pair(tmp_path: Path, secret: SecretKey) -> KeySettings:
    (tmp_path / "test.key").write_bytes(secret.dump())
    (tmp_path / "test.pub").write_bytes(minisign.dump_public_key(secret.public))
    return KeySettings(path=tmp_path / "test.key", public_path=tmp_path / "test.pub")


def of(keys: KeySettings) -> Environment:
    return Environment("test", (), keys)


def test_signed_with_the_secret_and_checked_with_the_public_key(pair: KeySettings) -> None:
    keys = signing.load_to_publish(of(pair))
    signature = keys.sign(b"text", comment="a comment")
    ring = signing.load_to_check(of(dataclasses.replace(pair, path=None)))
    assert ring is not None
    ring.check(b"text", signature)
    with pytest.raises(AgentError):
        ring.check(b"other", signature)


def test_key_in_a_variable(
    pair: KeySettings, secret: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeySettings(variable="TEST_KEY")
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(AgentError, match="the variable TEST_KEY is not set"):
        signing.load_to_publish(of(keys))
    with pytest.raises(AgentError, match="cannot check what stands in test") as caught:
        signing.load_to_check(of(keys))
    assert "public_key:" in caught.value.remedy
    monkeypatch.setenv("TEST_KEY", secret.dump().decode())
    assert signing.load_to_publish(of(keys)).secret is not None
    monkeypatch.setenv("TEST_KEY", "nonsense")
    with pytest.raises(AgentError, match="cannot use the key in TEST_KEY") as caught:
        signing.load_to_publish(of(keys))
    assert "nonsense" not in caught.value.message


def test_nothing_is_published_unsigned_where_a_key_is_named(pair: KeySettings) -> None:
    assert signing.load_to_publish(of(KeySettings())).sign(b"text", comment="x") == b""
    with pytest.raises(AgentError, match="has a public_key, and no key to sign with"):
        signing.load_to_publish(of(dataclasses.replace(pair, path=None)))
    with pytest.raises(AgentError, match="No such file"):
        signing.load_to_publish(of(KeySettings(path=Path("/none.key"))))


def test_two_files_of_different_pairs(pair: KeySettings, tmp_path: Path) -> None:
    other = minisign.dump_public_key(SecretKey.generate().public)
    (tmp_path / "test.pub").write_bytes(other)
    with pytest.raises(AgentError, match="does not belong to"):
        signing.load_to_publish(of(pair))
    (tmp_path / "test.pub").write_bytes(b"nonsense")
    with pytest.raises(AgentError, match="as a public key: it must have 2 lines"):
        signing.load_to_check(of(pair))


def test_looking_goes_on_without_keys(pair: KeySettings) -> None:
    said: list[str] = []
    known = Environments(
        Path("deploy.yaml"), (of(pair), Environment("dark", (), KeySettings(variable="NOT_SET")))
    )
    rings = signing.load_rings(known, warn=said.append)
    assert rings["test"] is not None
    assert rings["dark"] is None
    assert said == ["signatures in dark are not looked at: the variable NOT_SET is not set"]
