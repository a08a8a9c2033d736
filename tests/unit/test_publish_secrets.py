"""What is taken for a secret, what is not, and where it is said to be."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.publish import secrets

_ARMOUR = b"-----BEGIN %bPRIVATE KEY%b-----"
_BASE64 = base64.b64encode(bytes(range(120)))
_ID = b"AKIA" + b"Q3EGRI7PIDYKTS2L"
_AWS = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzzzz"

SECRETS = {
    "pkcs8": (_ARMOUR % (b"", b"") + b"\n" + _BASE64, "a private key"),
    "rsa": (_ARMOUR % (b"RSA ", b"") + b"\r\n" + _BASE64, "a private key"),
    "ec": (_ARMOUR % (b"EC ", b"") + b"\n" + _BASE64, "a private key"),
    "openssh": (_ARMOUR % (b"OPENSSH ", b"") + b"\n" + _BASE64, "a private key"),
    "encrypted": (
        _ARMOUR % (b"RSA ", b"") + b"\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n" + _BASE64,
        "a private key",
    ),
    "pgp": (_ARMOUR % (b"PGP ", b" BLOCK") + b"\n\n" + _BASE64, "a private key"),
    "json": (b'{"key": "' + _ARMOUR % (b"", b"") + b"\\n" + _BASE64 + b'"}', "a private key"),
    "source": (b'key = "' + _ARMOUR % (b"", b"") + b'\\n" +\n  "' + _BASE64, "a private key"),
    "minisign": (
        b"untrusted comment: x\nRWRTY0Iy" + base64.b64encode(bytes(152)),
        "a secret key of minisign",
    ),
    "minisign without password": (
        b"untrusted comment: x\nRWQAAEIy" + base64.b64encode(bytes(152)),
        "a secret key of minisign",
    ),
    "aws": (
        b"aws_access_key_id = %b\naws_secret_access_key = %b\n" % (_ID, _AWS),
        "an access key of AWS with its secret",
    ),
    "aws the other way": (
        b'{"secret": "%b", "id": "%b"}' % (_AWS, _ID),
        "an access key of AWS with its secret",
    ),
}
HARMLESS = {
    "armour in a program": _ARMOUR % (b"RSA ", b"") + b"\x00-----END RSA PRIVATE KEY-----\x00",
    "armour in a manual": b"begins with " + _ARMOUR % (b"", b"") + b" and then base64",
    "certificate": b"-----BEGIN CERTIFICATE-----\n" + _BASE64,
    "public key": b"-----BEGIN PUBLIC KEY-----\n" + _BASE64,
    "minisign's public key": b"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
    "id alone": b"aws_access_key_id = " + _ID,
    "id beside a commit": b"%b %b" % (_ID, b"0123456789abcdef" * 2 + b"01234567"),
    "id of the manuals": b"AKIAIOSFODNN7EXAMPLE " + _AWS,
    "secret far from the id": _ID + b" " * 2000 + _AWS,
}


def found(content: bytes, piece_bytes: int) -> dict[str, int]:
    scan = secrets.Scan()
    for at in range(0, len(content), piece_bytes):
        scan.feed(content[at : at + piece_bytes])
    return scan.found


@pytest.mark.parametrize("piece_bytes", [7, 100, 2**20])
@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_found_with_their_line(name: str, piece_bytes: int) -> None:
    content, what = SECRETS[name]
    alone = found(content, 2**20)
    assert alone.keys() == {what}
    for above in (0, 1, 3000):
        assert found(b"a line\n" * above + content, piece_bytes) == {what: alone[what] + above}


@pytest.mark.parametrize("piece_bytes", [7, 2**20])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_resembles_a_secret(name: str, piece_bytes: int) -> None:
    assert found(HARMLESS[name], piece_bytes) == {}


def test_each_kind_is_told_once(tmp_path: Path) -> None:
    both = SECRETS["rsa"][0] + b"\n" + SECRETS["aws"][0] + b"\n" + SECRETS["rsa"][0]
    assert found(both, 2**20) == {
        "a private key": 1,
        "an access key of AWS with its secret": 3,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_that_openssh_makes(kind: str, tmp_path: Path) -> None:
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not on this machine")
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    assert found(path.read_bytes(), 2**20) == {"a private key": 1}
    assert found(path.with_suffix(".pub").read_bytes(), 2**20) == {}


@pytest.mark.parametrize("program", ["/usr/bin/ssh-keygen", "/usr/bin/openssl", "/usr/bin/git"])
def test_programs_that_handle_keys_are_none(program: str) -> None:
    if not os.path.exists(program):
        pytest.skip(f"{program} is not on this machine")
    assert found(Path(program).read_bytes(), 2**20) == {}


@pytest.mark.parametrize(
    "path",
    [
        ".env", "app/.env", ".env.production", ".ENV", ".netrc", "home/.pgpass", "id_rsa",
        "keys/id_ed25519", "cert.p12", "cert.PFX", "store.jks", ".aws/credentials",
        "root/.aws/credentials",
    ],
)  # fmt: skip
def test_names_of_secrets(path: str) -> None:
    assert secrets.by_name(path)


@pytest.mark.parametrize(
    "path",
    [
        "env", ".env.example", ".env.sample", ".environment", "id_rsa.pub", "aws/credentials",
        "x.aws/credentials", ".aws/config", "cert.pem", "p12", "netrc", ".pgpass/readme",
    ],
)  # fmt: skip
def test_names_of_other_files(path: str) -> None:
    assert secrets.by_name(path) == ""


def test_watch_names_the_file_and_the_way_on(tmp_path: Path) -> None:
    watch = secrets.Watch(tmp_path, ("allowed", "./also/"))
    for path in ("a b/.env", "allowed/id_rsa", "also", "k", "empty"):
        watch.look(path, b"")
        watch.look(path, b"\n")
        if path in ("k", "also"):
            watch.look(path, SECRETS["rsa"][0])
    by_name, by_text = watch.problems()
    assert str(by_name).startswith(f"{tmp_path}/a b/.env: error: looks like settings")
    assert by_name.suggestion.endswith("--allow-secrets 'a b/.env'")
    assert str(by_text).startswith(f"{tmp_path}/k:2:1: error: looks like a private key (leave")
