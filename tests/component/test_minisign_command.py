"""Our signatures and keys with the minisign(1) of Debian, in both directions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.formats import minisign
from agent.model.errors import AgentError
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey

MESSAGE = b'{"version": "1.214"}\n'
PASSWORD = "correct horse ü"


def run(folder: Path, *args: str, typed: str = "") -> str:
    """What minisign prints; it takes passwords from its standard input here."""
    done = subprocess.run(
        ["minisign", *args],
        cwd=folder,
        input=typed,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(folder: Path, *args: str, typed: str = "") -> str:
    """What minisign says where it refuses."""
    with pytest.raises(AssertionError) as caught:
        run(folder, *args, typed=typed)
    return str(caught.value)


def write_pair(folder: Path, key: SecretKey, **how: str | int) -> None:
    (folder / "our.key").write_bytes(key.dump(**how))  # type: ignore[arg-type]
    (folder / "our.pub").write_bytes(minisign.dump_public_key(key.public))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "message").write_bytes(MESSAGE)
    return tmp_path


@pytest.mark.parametrize("legacy", [False, True])
def test_it_verifies_what_we_sign(folder: Path, *, legacy: bool) -> None:
    key = SecretKey.generate()
    write_pair(folder, key)
    signature = key.sign(MESSAGE, trusted_comment="serial:5\tfür production", legacy=legacy)
    (folder / "message.minisig").write_bytes(signature)
    assert "serial:5\tfür production" in run(folder, "-Vm", "message", "-p", "our.pub")
    assert run(folder, "-VQm", "message", "-P", minisign.shown_public_key(key.public))

    damaged = signature.replace(b"serial:5", b"serial:6")
    (folder / "message.minisig").write_bytes(damaged)
    assert "omment signature" in refusal(folder, "-Vm", "message", "-p", "our.pub")
    with pytest.raises(AgentError, match="the trusted comment"):
        KeyRing([key.public]).check(MESSAGE, damaged)


@pytest.mark.parametrize("options", [[], ["-l"], ["-t", "serial:7", "-c", "anything"]])
def test_we_verify_what_it_signs(folder: Path, options: list[str]) -> None:
    run(folder, "-G", "-W", "-p", "its.pub", "-s", "its.key")
    run(folder, "-S", "-s", "its.key", "-m", "message", *options)
    ring = KeyRing([minisign.parse_public_key((folder / "its.pub").read_bytes())])
    signature = (folder / "message.minisig").read_bytes()
    assert minisign.parse_signature(signature).prehashed == ("-l" not in options)
    assert ring.check(MESSAGE, signature) == ring.ids[0]
    assert ring.check_file(folder / "message", signature)[0] == ring.ids[0]
    with pytest.raises(AgentError, match="is not what the owner"):
        ring.check(MESSAGE + b" ", signature)


def test_we_use_its_unencrypted_key_and_it_uses_ours(folder: Path) -> None:
    run(folder, "-G", "-W", "-p", "its.pub", "-s", "its.key")
    its = SecretKey.load(folder / "its.key")
    assert minisign.dump_public_key(its.public).split(b"\n")[1] in (folder / "its.pub").read_bytes()
    (folder / "message.minisig").write_bytes(its.sign(MESSAGE, trusted_comment="x"))
    run(folder, "-Vm", "message", "-p", "its.pub")
    assert its.dump() == (folder / "its.key").read_bytes()

    our = SecretKey.generate()
    write_pair(folder, our)
    run(folder, "-S", "-s", "our.key", "-m", "message")
    KeyRing([our.public]).check(MESSAGE, (folder / "message.minisig").read_bytes())


def test_it_opens_our_encrypted_key(folder: Path) -> None:
    key = SecretKey.generate()
    write_pair(folder, key, password=PASSWORD, memory=2**24)
    run(folder, "-S", "-s", "our.key", "-m", "message", typed=f"{PASSWORD}\n")
    KeyRing([key.public]).check(MESSAGE, (folder / "message.minisig").read_bytes())
    said = refusal(folder, "-S", "-s", "our.key", "-m", "message", typed="wrong\n")
    assert "Wrong password" in said
    run(folder, "-R", "-s", "our.key", "-p", "again.pub", typed=f"{PASSWORD}\n")
    again = minisign.parse_public_key((folder / "again.pub").read_bytes())
    assert again == key.public


@pytest.mark.slow  # scrypt with 1 GiB: 4 s each time, on a machine that is not busy
@pytest.mark.timeout(200)
def test_we_open_its_encrypted_key_and_it_opens_ours(folder: Path) -> None:
    run(folder, "-G", "-p", "its.pub", "-s", "its.key", typed=f"{PASSWORD}\n" * 2)
    its = SecretKey.load(folder / "its.key", password=PASSWORD)
    assert minisign.parse_public_key((folder / "its.pub").read_bytes()) == its.public

    our = SecretKey.generate()
    write_pair(folder, our, password=PASSWORD)
    run(folder, "-S", "-s", "our.key", "-m", "message", typed=f"{PASSWORD}\n")
    run(folder, "-Vm", "message", "-p", "our.pub")
