"""minisign's files against known ones, and against what damage and strangers make of them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.formats import minisign
from agent.formats.minisign import Lock
from agent.model.errors import AgentError, Code
from agent.system import ed25519
from agent.system.keyring import KeyRing
from agent.system.secret_key import SecretKey

# The example of minisign's author, from the README of rust-minisign-verify: of the bytes "test".
PUBLIC = (
    b"untrusted comment: minisign public key E7620F1842B4E81F\n"
    b"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n"
)
PREHASHED = (
    b"untrusted comment: signature from minisign secret key\n"
    b"RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/"
    b"z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n"
    b"trusted comment: timestamp:1633700835\tfile:test\tprehashed\n"
    b"wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJ"
    b"pIidRJnp94ABQkJAgAooBQ==\n"
)
LEGACY = (
    b"untrusted comment: signature from minisign secret key\n"
    b"RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73Y"
    b"iIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n"
    b"trusted comment: timestamp:1555779966\tfile:test\n"
    b"QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/V"
    b"qE81QFuMKI5k/SfNQUaOAA==\n"
)
RING = KeyRing([minisign.parse_public_key(PUBLIC)])
SMALL = 2**20
"""Bytes for scrypt, so that a test takes milliseconds."""


def test_rfc_8032() -> None:
    # section 7.1, test 2
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert ed25519.public_key(seed) == public
    assert ed25519.sign(seed, b"\x72") == signature
    assert ed25519.is_signed(b"\x72", signature, public=public)
    assert not ed25519.is_signed(b"\x73", signature, public=public)
    assert not ed25519.is_signed(b"\x72", signature[:63], public=public)


@pytest.mark.parametrize("signature", [PREHASHED, LEGACY])
def test_known_signatures(signature: bytes) -> None:
    assert RING.check(b"test", signature) == "E7620F1842B4E81F"
    assert RING.ids == ("E7620F1842B4E81F",)
    assert minisign.dump_signature(minisign.parse_signature(signature)) == signature
    with pytest.raises(AgentError, match="is not what the owner of the key E7620F1842B4E81F sign"):
        RING.check(b"Test", signature)


def test_known_public_key() -> None:
    key = minisign.parse_public_key(PUBLIC)
    assert minisign.dump_public_key(key) == PUBLIC
    assert minisign.parse_public_key(PUBLIC.replace(b"\n", b"\r\n").rstrip()) == key
    assert minisign.shown_public_key(key).encode() in PUBLIC


def line(number: int, change: Callable[[bytes], bytes]) -> bytes:
    """The known signature with one of its lines changed."""
    lines = PREHASHED.split(b"\n")
    lines[number] = change(lines[number])
    return b"\n".join(lines)


def flipped(index: int) -> Callable[[bytes], bytes]:
    def flip(text: bytes) -> bytes:
        content = bytearray(base64.b64decode(text))
        content[index] ^= 1
        return base64.b64encode(content)

    return flip


@pytest.mark.parametrize(
    ("signature", "cause"),
    [
        (b"", "it must have 4 lines, and has 0"),
        (PUBLIC, "it must have 4 lines, and has 2"),
        (PREHASHED + b"more\n", "it must have 4 lines, and has 5"),
        (line(0, lambda _: b"comment: x"), "no line that begins with untrusted comment:"),
        (line(0, lambda text: text + b"x" * 1024), "its untrusted comment is too long"),
        (line(1, lambda text: text[:-4]), "its base64 is cut off"),
        (line(1, lambda text: text[:-5]), "its base64 is damaged"),
        (line(1, lambda text: b" " + text), "its base64 is damaged"),
        (line(1, lambda text: text[:-2] + b"p="), "its base64 is cut off, or of something else"),
        (line(1, flipped(0)), "it is of a kind that minisign does not make"),
        (line(1, flipped(2)), "it is signed with the key E7620F1842B4E81E, and /etc/"),
        (line(1, flipped(10)), "is not what the owner of the key E7620F1842B4E81F signed"),
        (line(1, flipped(73)), "is not what the owner of the key E7620F1842B4E81F signed"),
        (line(2, lambda _: b"x"), "no line that begins with trusted comment:"),
        (line(2, lambda text: text[:-1]), "the trusted comment of its signature is not what the"),
        (line(2, lambda text: text + b"\x1b[2J"), "signs that cannot be printed"),
        (line(2, lambda text: text + b"\xff"), "its trusted comment is no UTF-8 text"),
        (line(2, lambda text: text + b"x" * 8192), "its trusted comment is too long"),
        (line(3, lambda _: b""), "it must have 4 lines, and has 3"),
        (line(3, lambda text: text[:-8]), "its base64 is"),
        (line(3, flipped(0)), "the trusted comment of its signature is not what the"),
        (PREHASHED + b"\n" * 20_000, "it has more than 10 KiB"),
    ],
)
def test_damaged_signatures(signature: bytes, cause: str) -> None:
    with pytest.raises(AgentError) as caught:
        RING.check(b"test", signature, what="the manifest of shop")
    assert caught.value.code is Code.MANIFEST_REFUSED
    assert caught.value.message.startswith("cannot trust the manifest of shop: ")
    assert cause in caught.value.message
    assert caught.value.remedy


def test_a_kind_of_signature_is_not_taken_for_the_other() -> None:
    prehashed = minisign.parse_signature(PREHASHED)
    pure = minisign.dump_signature(dataclasses.replace(prehashed, prehashed=False))
    with pytest.raises(AgentError, match="is not what the owner"):
        RING.check(b"test", pure)


def test_the_untrusted_comment_means_nothing() -> None:
    assert RING.check(b"test", line(0, lambda _: b"untrusted comment: \x00 anything"))


def test_two_keys_with_one_id() -> None:
    key = minisign.parse_public_key(PUBLIC)
    assert KeyRing([key, key]).ids == ("E7620F1842B4E81F",)
    with pytest.raises(AgentError, match="two keys in it have the id E7620F1842B4E81F"):
        KeyRing([key, dataclasses.replace(key, key=bytes(32))])


@pytest.mark.parametrize("password", ["", "correct horse", "ü" * 200])
def test_a_secret_key_comes_back(password: str) -> None:
    key = SecretKey.generate()
    again = SecretKey.parse(key.dump(password=password, memory=SMALL), password=password)
    assert again.public == key.public
    signed = again.sign(b"message", trusted_comment="serial:5\tü")
    assert KeyRing([key.public]).check(b"message", signed) == minisign.shown_id(key.public.id)
    assert str(key).startswith("<agent.system.secret_key.SecretKey object")


def test_secret_keys_that_are_refused() -> None:
    key = SecretKey.generate()
    sealed, plain = key.dump(password="right", memory=SMALL), key.dump()
    other = SecretKey.generate().dump().split(b"\n")[1]
    mixed = base64.b64decode(plain.split(b"\n")[1])[:94] + base64.b64decode(other)[94:]
    cases = [
        (sealed, "wrong", "the password is wrong"),
        (sealed, "", "it is encrypted, and no password was given"),
        (PUBLIC, "", "its base64 is cut off, or of something else"),
        (plain[:-10], "", "its base64 is"),
        (b"x" * 20_000, "", "it has more than 10 KiB"),
        (plain.split(b"\n")[0] + b"\n" + base64.b64encode(mixed), "", "do not belong together"),
        (plain.replace(b"RWQAAEIy", b"RWQAAEIx"), "", "a kind that minisign does not make"),
    ]
    for text, password, cause in cases:
        with pytest.raises(AgentError) as caught:
            SecretKey.parse(text, password=password, where="ci.key")
        assert cause in caught.value.message
        assert caught.value.message.startswith("cannot use ci.key: ")


@pytest.mark.parametrize("comment", ["two\nlines", "\x1b[2J", "x" * 9000])
def test_trusted_comments_that_are_refused(comment: str) -> None:
    with pytest.raises(AgentError, match="trusted comment"):
        SecretKey.generate().sign(b"", trusted_comment=comment)


@pytest.mark.parametrize(
    ("operations", "memory", "expected"),
    [
        (2**25, 2**30, (2**20, 8, 1)),  # libsodium's SENSITIVE, which minisign takes
        (2**19, 2**24, (2**14, 8, 1)),  # INTERACTIVE
        (0, 2**24, (2**10, 8, 1)),  # at least 2**15 operations
        (2**22, 2**24, (2**14, 8, 8)),
    ],
)
def test_scrypt_parameters(operations: int, memory: int, expected: tuple[int, int, int]) -> None:
    assert Lock(b"", operations, memory).scrypt() == expected


@pytest.mark.parametrize(
    ("operations", "memory"), [(2**64 - 1, 2**64 - 1), (2**63, 2**30), (2**26, 2**31), (2**15, 0)]
)
def test_locks_that_would_take_the_machine(operations: int, memory: int) -> None:
    with pytest.raises(ValueError, match="more work than minisign"):
        Lock(b"", operations, memory).scrypt()


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_refused(text: bytes) -> None:
    with pytest.raises(AgentError):
        RING.check(b"test", text)
    with pytest.raises(ValueError, match=r"\w"):
        minisign.parse_public_key(text)
    with pytest.raises(AgentError):
        SecretKey.parse(text)
